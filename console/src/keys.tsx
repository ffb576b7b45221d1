/** Who uses how much: tenants by their calls, keys by when they were last used. */

import { type Live } from "./figures";
import { ago, count, rate } from "./words";

export interface Key {
  key_id: string;
  name: string;
  tenant: string | null;
  scopes: string[];
  models: string[];
  limits: Record<string, number | null>;
  expires_at: string | null;
  revoked_at: string | null;
  last_used_at: string | null;
}

const MOST = 200;
const SPECIAL: Record<string, string> = { _none: "without a tenant", _other: "all others" };

export function Tenants({ now, before }: { now: Live; before: Live }) {
  if (!now.tenants.length) return <p>No calls yet.</p>;
  return (
    <div class="scroll" role="group" aria-label="Tenants" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">tenant</th>
            <th scope="col">calls/s</th>
            <th scope="col">calls</th>
            <th scope="col">images</th>
          </tr>
        </thead>
        <tbody>
          {now.tenants.map((tenant) => {
            const old = before.tenants.find((each) => each.tenant === tenant.tenant);
            const calls = Math.max(0, tenant.calls - (old?.calls ?? 0));
            return (
              <tr key={tenant.tenant}>
                <th scope="row">{SPECIAL[tenant.tenant] ?? tenant.tenant}</th>
                <td>{rate(calls / Math.max(now.at - before.at, 0.001))}</td>
                <td>{count(tenant.calls)}</td>
                <td>{count(tenant.images)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

export function Keys({ keys }: { keys: Key[] | null }) {
  if (keys === null) return <p>Keys are shown to who has the scope admin.</p>;
  const live = keys.filter((key) => key.revoked_at === null);
  const shown = live.toSorted((a, b) => (b.last_used_at ?? "").localeCompare(a.last_used_at ?? "")).slice(0, MOST);
  return (
    <>
      <div class="scroll" role="group" aria-label="Keys" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">key</th>
              <th scope="col">tenant</th>
              <th scope="col">may</th>
              <th scope="col">models</th>
              <th scope="col">limits</th>
              <th scope="col">last used</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((key) => (
              <tr key={key.key_id}>
                <th scope="row">
                  {key.name} <small>{key.key_id}</small>
                </th>
                <td>{key.tenant ?? "–"}</td>
                <td>{key.scopes.join(", ")}</td>
                <td>{key.models.join(", ")}</td>
                <td>{limits(key.limits)}</td>
                <td>{ago(key.last_used_at)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {live.length > MOST && <p>The {MOST} that were used last, of {live.length}.</p>}
    </>
  );
}

const UNITS: Record<string, string> = {
  requests_per_s: "calls/s",
  images_per_s: "images/s",
  images_per_day: "images a day",
  max_in_flight: "at once",
};

const limits = (set: Key["limits"]): string =>
  Object.entries(UNITS)
    .filter(([name]) => set[name] !== null && set[name] !== undefined)
    .map(([name, unit]) => `${set[name]} ${unit}`)
    .join(", ") || "none";
