/** A card for each model: how fast, how many, which batches, what the cache did, and which version answers. */

import { Bars, Lines, Parts } from "./charts";
import { difference, find, rates, total, type Live, type Model } from "./figures";
import { count, milliseconds, rate, share } from "./words";

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

export function Models(props: Shown) {
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

function Card({ model, history, now, before }: Shown & { model: Model }) {
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
      <Versions model={model} now={now} before={before} />
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

function Versions({ model, now, before }: Omit<Shown, "history"> & { model: Model }) {
  const old = find(before, model.model)?.versions ?? [];
  return (
    <section>
      <h4>Versions</h4>
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
          {model.versions
            .filter((version) => version.ready)
            .map((version) => {
              const figures = rates(now, before, [version], old);
              return (
                <tr key={version.version}>
                  <th scope="row">{version.version}</th>
                  <td>{share(version.weight)}</td>
                  <td>{rate(figures.perSecond)}</td>
                  <td>{milliseconds(figures.p99)}</td>
                </tr>
              );
            })}
        </tbody>
      </table>
    </section>
  );
}
