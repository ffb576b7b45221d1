/** Who uses how much: tenants, and keys. */

import { since, type KeyUse, type Live } from "./figures";
import { ago, count, rate, share } from "./words";

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
const OTHERS: Record<string, string> = { _none: "without a key", _other: "all others" };

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

/** What a key used, in all and of late. */
interface Used extends KeyUse {
  perSecond: number;
  failedShare: number | null;
}

function used(now: Live, before: Live): Map<string, Used> {
  const seconds = Math.max(now.at - before.at, 0.001);
  return new Map(
    now.keys.map((key) => {
      const old = before.keys.find((each) => each.key === key.key);
      const calls = since(key.calls, old?.calls);
      const failed = since(key.failed, old?.failed);
      return [key.key, { ...key, perSecond: calls / seconds, failedShare: calls ? failed / calls : null }];
    }),
  );
}

const USED = ["calls/s", "not answered", "calls", "images"];

function Use({ of }: { of: Used | undefined }) {
  return (
    <>
      <td>{rate(of?.perSecond ?? 0)}</td>
      <td>{share(of?.failedShare ?? null)}</td>
      <td>{count(of?.calls ?? 0)}</td>
      <td>{count(of?.images ?? 0)}</td>
    </>
  );
}

/** Those of `admin`, the busiest first; who has not that scope sees what its own key used. */
export function Keys({ keys, now, before }: { keys: Key[] | null; now: Live; before: Live }) {
  const uses = used(now, before);
  const live = keys?.filter((key) => key.revoked_at === null) ?? [];
  const busy = (key: Key) => uses.get(key.key_id)?.perSecond ?? 0;
  const shown = live
    .toSorted((a, b) => busy(b) - busy(a) || (b.last_used_at ?? "").localeCompare(a.last_used_at ?? ""))
    .slice(0, MOST);
  const named = new Set(live.map((key) => key.key_id));
  const others = [...uses.values()].filter((use) => !named.has(use.key));
  const about = keys === null ? [] : ["tenant", "may", "models", "limits", "last used"];
  return (
    <>
      <div class="scroll" role="group" aria-label="Keys" tabIndex={0} hidden={!shown.length && !others.length}>
        <table>
          <thead>
            <tr>
              {["key", ...USED, ...about].map((name) => (
                <th key={name} scope="col">
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((key) => (
              <tr key={key.key_id}>
                <th scope="row">
                  {key.name} <small>{key.key_id}</small>
                </th>
                <Use of={uses.get(key.key_id)} />
                <td>{key.tenant ?? "–"}</td>
                <td>{key.scopes.join(", ")}</td>
                <td>{key.models.join(", ")}</td>
                <td>{limits(key.limits)}</td>
                <td>{ago(key.last_used_at)}</td>
              </tr>
            ))}
            {others.map((use) => (
              <tr key={use.key}>
                <th scope="row">{OTHERS[use.key] ?? use.key}</th>
                <Use of={use} />
                {about.map((name) => (
                  <td key={name}>–</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {keys === null && <p>All keys are shown to who has the scope admin.</p>}
      {live.length > MOST && <p>The {MOST} busiest, of {live.length}.</p>}
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
