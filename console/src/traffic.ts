/** A model's traffic policy, and the changes of it that have a button. */

import { call, read, Refused } from "./api";
import type { Model } from "./figures";

const STABLE = "stable";
const CANARY = "canary";
/** What was stable before the last promotion here: an alias like any other. */
const PREVIOUS = "previous";

interface Policy {
  aliases: Record<string, number>;
  weights: Record<string, number>;
}

interface Stored {
  model: string;
  policy: Policy;
  revision: number;
}

export interface Traffic {
  policy: Policy;
  revision: number;
}

export type Policies = Record<string, Traffic>;

export async function readPolicies(key: string): Promise<Policies> {
  const stored = await read<Stored[]>(key, "admin/v1/traffic");
  return Object.fromEntries(stored.map(({ model, policy, revision }) => [model, { policy, revision }]));
}

/** The share of the calls that a version gets which name none. */
export function shareOf(model: Model, traffic: Traffic | undefined, version: string): number {
  const { aliases = {}, weights = {} } = traffic?.policy ?? {};
  const sum = Object.values(weights).reduce((a, b) => a + b, 0);
  if (!sum) return version === String(aliases[STABLE] ?? newest(model)) ? 1 : 0;
  const named = Object.entries(weights).filter(([name]) => String(aliases[name] ?? name) === version);
  return named.reduce((a, [, weight]) => a + weight, 0) / sum;
}

export const aliasesOf = (traffic: Traffic | undefined, version: string): string[] =>
  Object.entries(traffic?.policy.aliases ?? {})
    .filter(([, number]) => String(number) === version)
    .map(([name]) => name);

/** Who answers most: what a promotion takes the place of. */
function answering(model: Model, traffic: Traffic | undefined): number {
  const stable = traffic?.policy.aliases[STABLE];
  if (stable !== undefined) return stable;
  const ready = model.versions.filter((each) => each.ready).map((each) => each.version);
  const share = (version: string) => shareOf(model, traffic, version);
  return Number(ready.reduce((best, each) => (share(each) > share(best) ? each : best), newest(model)));
}

const newest = (model: Model): string => model.versions.filter((each) => each.ready).at(-1)?.version ?? "";

/** Give a version everything. */
export async function promote(key: string, model: Model, traffic: Traffic | undefined, version: string) {
  const before = answering(model, traffic);
  const previous = String(before) === version ? {} : { [PREVIOUS]: before };
  await put(key, model, traffic, everythingTo(Number(version), { ...traffic?.policy.aliases, ...previous }));
}

/** Give a version a tenth. */
export async function tryOut(key: string, model: Model, traffic: Traffic | undefined, version: string) {
  const aliases = { ...traffic?.policy.aliases, [STABLE]: answering(model, traffic), [CANARY]: Number(version) };
  await put(key, model, traffic, { aliases, weights: { [STABLE]: 90, [CANARY]: 10 } });
}

/** The version that rolling back leaves with everything; null where there is nothing to roll back. */
export function rollsBackTo(traffic: Traffic | undefined): number | null {
  const { aliases = {}, weights = {} } = traffic?.policy ?? {};
  if (weights[CANARY]) return aliases[STABLE] ?? null;
  const previous = aliases[PREVIOUS];
  return previous === undefined || previous === aliases[STABLE] ? null : previous;
}

/** Take from the canary what it gets; where it gets nothing, take the last promotion back. */
export async function rollBack(key: string, model: Model, traffic: Traffic) {
  const { aliases, weights } = traffic.policy;
  if (weights[CANARY]) {
    await call(key, `admin/v1/traffic/${encodeURIComponent(model.model)}/rollback`, { method: "POST" });
    return;
  }
  const { [PREVIOUS]: previous, ...others } = aliases;
  if (previous === undefined) throw new Refused(409, "There is nothing to roll back.");
  await put(key, model, traffic, everythingTo(previous, others));
}

/** A version that has everything is no canary. */
function everythingTo(version: number, { [CANARY]: canary, ...aliases }: Record<string, number>): Policy {
  const kept = canary === undefined || canary === version ? aliases : { ...aliases, [CANARY]: canary };
  return { aliases: { ...kept, [STABLE]: version }, weights: { [STABLE]: 100 } };
}

/** Fails where another changed the policy since it was read. */
async function put(key: string, model: Model, traffic: Traffic | undefined, changed: Policy) {
  await call(key, `admin/v1/traffic/${encodeURIComponent(model.model)}?revision=${traffic?.revision ?? 0}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...traffic?.policy, ...changed }),
  });
}
