/** A card for each model: how fast, how many, which batches, what the cache did, and which version answers. */

import { useRef, useState } from "preact/hooks";
import { told } from "./api";
import { Bars, Lines, Parts } from "./charts";
import { difference, find, rates, total, type Live, type Model } from "./figures";
import {
  aliasesOf,
  promote,
  rollBack,
  rollsBackTo,
  shareOf,
  tryOut,
  type Policies,
  type Traffic,
} from "./traffic";
import { count, milliseconds, rate, share } from "./words";

const ENCODED = "_encoded";
const CACHED: Record<string, string> = {
  l1: "in the worker's memory",
  l2: "in Redis",
  coalesced: "with an equal call",
  miss: "by Triton",
  bypass: "past the cache",
};

interface Shown {
  history: Live[];
  now: Live;
  /** The answer that figures are compared with. */
  before: Live;
}

interface Acting {
  adminKey: string | null;
  policies: Policies;
  changed: (message: string, failed?: boolean) => Promise<void>;
}

export function Models(props: Shown & Acting) {
  const models = props.now.models.filter((model) => model.versions.some((version) => version.ready));
  if (!models.length) return <p>No model is ready.</p>;
  return (
    <div class="cards">
      {models.map((model) => (
        <Card key={model.model} model={model} {...props} />
      ))}
    </div>
  );
}

function Card({ model, history, now, before, ...acting }: Shown & Acting & { model: Model }) {
  const old = find(before, model.model);
  const figures = rates(now, before, model.versions, old?.versions ?? []);
  const heading = `model-${model.model}`;
  return (
    <article class="card" aria-labelledby={heading}>
      <h3 id={heading}>{model.model}</h3>
      <dl class="figures">
        <Figure name="calls a second" value={rate(figures.perSecond)} />
        <Figure name="p50" value={milliseconds(figures.p50)} />
        <Figure name="p99" value={milliseconds(figures.p99)} />
        <Figure name="not answered" value={share(figures.failedShare)} />
      </dl>
      <History model={model.model} history={history} />
      <Cache model={model} old={old} />
      <Batches model={model} old={old} />
      <Versions model={model} now={now} before={before} {...acting} />
    </article>
  );
}

export function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function History({ model, history }: { model: string; history: Live[] }) {
  const steps = history.slice(1).map((now, place) => {
    const before = history[place] ?? now;
    return rates(now, before, find(now, model)?.versions ?? [], find(before, model)?.versions ?? []);
  });
  const places = Math.max(steps.length, 30);
  const last = steps.at(-1);
  return (
    <div class="history">
      <Lines
        label={`Calls a second, now ${last ? rate(last.perSecond) : "none"}`}
        lines={[{ name: "rate", values: steps.map((step) => step.perSecond) }]}
        places={places}
      />
      <p class="key">calls a second</p>
      <Lines
        label={`Latency, now p50 ${milliseconds(last?.p50 ?? null)}, p99 ${milliseconds(last?.p99 ?? null)}`}
        lines={[
          { name: "p99", values: steps.map((step) => step.p99) },
          { name: "p50", values: steps.map((step) => step.p50) },
        ]}
        places={places}
      />
      <p class="key">
        latency: <span class="p50">p50</span>, <span class="p99">p99</span>
      </p>
    </div>
  );
}

function Cache({ model, old }: { model: Model; old: Model | undefined }) {
  const asked = difference(model.cache, old?.cache);
  const all = total(asked);
  const parts = Object.entries(CACHED).map(([name, how]) => {
    const part = all ? (asked[name] ?? 0) / all : 0;
    return { name, share: part, text: `${share(part)} ${how}` };
  });
  return (
    <section>
      <h4>Answered</h4>
      {all ? <Parts label="Who answered" parts={parts} /> : <p class="none">No calls.</p>}
    </section>
  );
}

function Batches({ model, old }: { model: Model; old: Model | undefined }) {
  const executed = difference(model.batches, old?.batches);
  const all = total(executed);
  const sizes = Object.keys(model.batches).sort((a, b) => Number(a) - Number(b));
  const bars = sizes
    .filter((size) => executed[size])
    .map((size) => ({ name: `≤ ${Number(size)}`, share: (executed[size] ?? 0) / all }));
  return (
    <section>
      <h4>Images in a batch</h4>
      {all ? <Bars label={`${count(all)} batches by size`} bars={bars} /> : <p class="none">No batches.</p>}
    </section>
  );
}

type Change = (key: string, model: Model, traffic: Traffic | undefined, version: string) => Promise<void>;

function Versions({ model, now, before, adminKey, policies, changed }: Omit<Shown, "history"> & Acting & { model: Model }) {
  const [busy, setBusy] = useState(false);
  const heading = useRef<HTMLHeadingElement>(null);
  const base = model.model.endsWith(ENCODED) ? model.model.slice(0, -ENCODED.length) : model.model;
  const follows = base !== model.model && now.models.some((each) => each.model === base);
  const traffic = policies[model.model] ?? (follows ? policies[base] : undefined);
  const back = rollsBackTo(traffic);
  const acts = adminKey !== null && !follows;

  const act = async (change: Promise<void>, done: string) => {
    setBusy(true);
    try {
      await change;
      await changed(done);
    } catch (error) {
      await changed(`${model.model}: ${told(error)}`, true);
    } finally {
      setBusy(false);
      // The button that was pressed may be gone.
      requestAnimationFrame(() => document.activeElement === document.body && heading.current?.focus());
    }
  };
  const button = (version: string, verb: string, change: Change, done: string) => (
    <button
      type="button"
      aria-disabled={busy}
      aria-label={`${verb} version ${version} of ${model.model}`}
      onClick={() => busy || act(change(adminKey ?? "", model, traffic, version), `${model.model} ${version} ${done}.`)}
    >
      {verb}
    </button>
  );
  const shown = model.versions.filter((version) => version.ready);
  const old = find(before, model.model)?.versions ?? [];
  return (
    <section>
      <h4 ref={heading} tabIndex={-1}>
        Versions
      </h4>
      <table>
        <thead>
          <tr>
            <th scope="col">version</th>
            <th scope="col">weight</th>
            <th scope="col">calls/s</th>
            <th scope="col">p99</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((version) => {
            const figures = rates(now, before, [version], old);
            const weight = adminKey === null ? version.weight : shareOf(model, traffic, version.version);
            return [
              <tr key={version.version}>
                <th scope="row">
                  {version.version} <small>{aliasesOf(traffic, version.version).join(", ")}</small>
                </th>
                <td>{share(weight)}</td>
                <td>{rate(figures.perSecond)}</td>
                <td>{milliseconds(figures.p99)}</td>
              </tr>,
              acts && shown.length > 1 && weight !== 1 && (
                <tr key={`${version.version}-acts`} class="acts">
                  <td colSpan={4}>
                    {button(version.version, "Promote", promote, "answers all calls that name no version")}
                    {!weight && button(version.version, "Try on 10 %", tryOut, "answers a tenth of the calls")}
                  </td>
                </tr>
              ),
            ];
          })}
        </tbody>
      </table>
      {follows && <p class="none">As {base}.</p>}
      {acts && traffic !== undefined && back !== null && (
        <button
          type="button"
          class="back"
          aria-disabled={busy}
          aria-label={`Roll ${model.model} back to version ${back}`}
          onClick={() => busy || act(rollBack(adminKey, model, traffic), `${model.model} is back at ${back}.`)}
        >
          Roll back to {back}
        </button>
      )}
    </section>
  );
}
