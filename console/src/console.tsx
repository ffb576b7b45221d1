/** The page: a key is typed in, and from then on the figures are read every two seconds. */

import { render } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { keep, read, Refused, storedKey, told } from "./api";
import { total, difference, rates, type Live } from "./figures";
import { Keys, Tenants, type Key } from "./keys";
import { Figure, Models } from "./models";
import { readPolicies, type Policies } from "./traffic";
import { TryIt } from "./tryit";
import { count, milliseconds, rate, share } from "./words";

const EVERY_MS = 2_000;
/** Answers that are kept: two minutes. */
const KEPT = 61;
/** Figures are of the time since this many answers ago: half a minute. */
const WINDOW = 15;
/** Keys and policies are read at every so many answers. */
const SELDOM = 5;

interface Administered {
  keys: Key[];
  policies: Policies;
}

function Page() {
  const [key, setKey] = useState(storedKey());
  const [why, setWhy] = useState("");
  const leave = useCallback((reason: string) => {
    keep(null);
    setKey(null);
    setWhy(reason);
  }, []);
  if (key === null) {
    return (
      <SignIn
        why={why}
        enter={(typed) => {
          keep(typed);
          setKey(typed);
        }}
        refused={setWhy}
      />
    );
  }
  return <Board keyText={key} leave={leave} />;
}

function SignIn(props: { why: string; enter: (key: string) => void; refused: (why: string) => void }) {
  const [typed, setTyped] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), [props.why]);
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      await read<Live>(typed.trim(), "admin/v1/live");
      props.enter(typed.trim());
    } catch (error) {
      props.refused(told(error));
    }
  };
  return (
    <main class="sign-in">
      <h1>Tidegate</h1>
      <form onSubmit={(event) => void submit(event)}>
        <label for="key">API key with the scope read or admin</label>
        <input
          id="key"
          ref={field}
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={typed}
          aria-describedby="why"
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
        <button type="submit">Show the console</button>
        <p id="why" role="alert" aria-label="Why not" class="error">
          {props.why}
        </p>
      </form>
      <p>The key stays in this tab, and is forgotten when the tab is closed.</p>
    </main>
  );
}

function Board({ keyText, leave }: { keyText: string; leave: (why: string) => void }) {
  const [history, setHistory] = useState<Live[]>([]);
  const [administered, setAdministered] = useState<Administered | null>(null);
  const [paused, setPaused] = useState(false);
  const [trouble, setTrouble] = useState("");
  const [said, setSaid] = useState<{ text: string; failed: boolean }>({ text: "", failed: false });
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);

  const administer = useCallback(async () => {
    try {
      const [keys, policies] = await Promise.all([read<Key[]>(keyText, "admin/v1/keys"), readPolicies(keyText)]);
      setAdministered({ keys, policies });
    } catch (error) {
      if (!(error instanceof Refused && error.status === 403)) throw error;
      setAdministered(null);
    }
  }, [keyText]);

  useEffect(() => {
    if (paused) return;
    let stopped = false;
    let timer = 0;
    let turn = 0;
    const look = async () => {
      try {
        if (!document.hidden) {
          const live = await read<Live>(keyText, "admin/v1/live");
          if (turn++ % SELDOM === 0) await administer();
          if (stopped) return;
          setHistory((before) => [...before, live].slice(-KEPT));
          setTrouble("");
        }
      } catch (error) {
        if (stopped) return;
        if (error instanceof Refused && (error.status === 401 || error.status === 403)) return leave(told(error));
        setTrouble(`${told(error)} The figures are old.`);
      }
      timer = setTimeout(() => void look(), EVERY_MS);
    };
    void look();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [keyText, paused, administer, leave]);

  const changed = async (text: string, failed = false) => {
    setSaid({ text, failed });
    await administer().catch((error: unknown) => setTrouble(told(error)));
  };
  const now = history.at(-1);
  return (
    <>
      <header>
        <h1 ref={heading} tabIndex={-1}>
          Tidegate
        </h1>
        <div>
          <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
            Pause
          </button>
          <button type="button" onClick={() => leave("")}>
            Forget the key
          </button>
        </div>
      </header>
      <main>
        <p role="status" aria-label="What was changed" class={said.failed ? "said error" : "said"}>
          {said.text}
        </p>
        <p role="alert" aria-label="Trouble" class="error">
          {trouble}
        </p>
        {now === undefined ? (
          <p>Reading…</p>
        ) : (
          <Panels
            {...{ keyText, history, now, administered, changed }}
            before={history.at(-1 - WINDOW) ?? history[0] ?? now}
          />
        )}
      </main>
    </>
  );
}

interface Panel {
  keyText: string;
  history: Live[];
  now: Live;
  before: Live;
  administered: Administered | null;
  changed: (text: string, failed?: boolean) => Promise<void>;
}

function Panels({ keyText, history, now, before, administered, changed }: Panel) {
  return (
    <>
      <Section name="Now" note="Rates, percentiles and shares are of the last half minute.">
        <Summary now={now} before={before} />
      </Section>
      <Section name="Models">
        <Models
          {...{ history, now, before, changed }}
          adminKey={administered === null ? null : keyText}
          policies={administered?.policies ?? {}}
        />
      </Section>
      <Section name="Try it">
        <TryIt keyText={keyText} models={now.models} />
      </Section>
      <Section name="Replicas">
        <Replicas now={now} />
      </Section>
      <Section name="Usage">
        <Tenants now={now} before={before} />
        <Keys keys={administered?.keys ?? null} now={now} before={before} />
      </Section>
    </>
  );
}

function Section({ name, note, children }: { name: string; note?: string; children: preact.ComponentChildren }) {
  const id = `section-${name.replace(" ", "-").toLowerCase()}`;
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{name}</h2>
      {note && <p class="note">{note}</p>}
      {children}
    </section>
  );
}

function Summary({ now, before }: { now: Live; before: Live }) {
  const all = rates(now, before, merged(now), merged(before));
  const asked = now.models.map((model) =>
    difference(model.cache, before.models.find((each) => each.model === model.model)?.cache),
  );
  const calls = asked.reduce((sum, each) => sum + total(each), 0);
  const kept = asked.reduce((sum, { l1 = 0, l2 = 0, coalesced = 0 }) => sum + l1 + l2 + coalesced, 0);
  return (
    <dl class="figures summary">
      <Figure name="calls a second" value={rate(all.perSecond)} />
      <Figure name="p50" value={milliseconds(all.p50)} />
      <Figure name="p99" value={milliseconds(all.p99)} />
      <Figure name="not answered" value={share(all.failedShare)} />
      <Figure name="from the cache" value={share(calls ? kept / calls : null)} />
      <Figure name="in flight" value={`${count(now.in_flight)} of ${count(now.max_in_flight)}`} />
      <Figure name="replicas up" value={`${now.replicas.filter((each) => each.up).length} of ${now.replicas.length}`} />
    </dl>
  );
}

/** The versions of all models, told apart. */
const merged = (live: Live) =>
  live.models.flatMap((model) =>
    model.versions.map((version) => ({ ...version, version: `${model.model} ${version.version}` })),
  );

function Replicas({ now }: { now: Live }) {
  return (
    <div class="scroll" role="group" aria-label="Replicas" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">replica</th>
            <th scope="col">state</th>
            <th scope="col">takes calls</th>
            <th scope="col">share</th>
            <th scope="col">under way</th>
            <th scope="col">versions</th>
          </tr>
        </thead>
        <tbody>
          {now.replicas.map((replica) => (
            <tr key={replica.replica}>
              <th scope="row">
                {replica.replica} <small>{replica.address}</small>
              </th>
              <td class={replica.health === "good" ? "good" : "bad"}>{replica.health}</td>
              <td class={replica.up ? "good" : "bad"}>{replica.up ? "yes" : "no"}</td>
              <td>{share(replica.weight)}</td>
              <td>{count(replica.calls)}</td>
              <td>{count(replica.serves)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const root = document.getElementById("console");
if (root !== null) render(<Page />, root);
