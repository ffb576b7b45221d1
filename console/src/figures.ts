/** What GET /admin/v1/live says, and what two of its answers say about the time between them. */

export interface Version {
  version: string;
  ready: boolean;
  calls: Record<string, number>;
  answered_within: number[];
  weight: number | null;
}

export interface Model {
  model: string;
  photographs: boolean;
  images: number;
  cache: Record<string, number>;
  batches: Record<string, number>;
  versions: Version[];
}

export interface Tenant {
  tenant: string;
  calls: number;
  images: number;
}

export interface KeyUse {
  key: string;
  calls: number;
  failed: number;
  images: number;
}

export interface Replica {
  replica: number;
  address: string;
  health: string;
  up: boolean;
  weight: number;
  calls: number;
  serves: number;
}

export interface Live {
  at: number;
  bounds_s: number[];
  in_flight: number;
  max_in_flight: number;
  models: Model[];
  tenants: Tenant[];
  keys: KeyUse[];
  replicas: Replica[];
}

export interface Rates {
  perSecond: number;
  failedShare: number | null;
  p50: number | null;
  p99: number | null;
}

/** Counters begin anew where the files of the workers do; then what there is counts. */
export const since = (now: number, before: number | undefined): number =>
  before === undefined || now < before ? now : now - before;

export const total = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

export function difference(now: Record<string, number>, before: Record<string, number> | undefined) {
  return Object.fromEntries(Object.entries(now).map(([name, count]) => [name, since(count, before?.[name])]));
}

/** Seconds that a fraction did not exceed, interpolated in its bucket; null where nothing was counted. */
export function percentile(counts: number[], bounds: number[], fraction: number): number | null {
  let left = fraction * counts.reduce((a, b) => a + b, 0);
  if (left <= 0) return null;
  for (const [place, count] of counts.entries()) {
    const low = bounds[place - 1] ?? 0;
    const high = bounds[place];
    if (high === undefined) return low;
    if (count > 0 && left <= count) return low + ((high - low) * left) / count;
    left -= count;
  }
  return null;
}

export const find = (live: Live | undefined, model: string): Model | undefined =>
  live?.models.find((each) => each.model === model);

/** Of some versions of a model, between two answers. */
export function rates(now: Live, before: Live, versions: Version[], earlier: Version[]): Rates {
  const counts = now.bounds_s.map(() => 0).concat(0);
  let calls = 0;
  let good = 0;
  for (const version of versions) {
    const old = earlier.find((each) => each.version === version.version);
    for (const [outcome, count] of Object.entries(difference(version.calls, old?.calls))) {
      calls += count;
      if (outcome === "ok") good += count;
    }
    version.answered_within.forEach((count, place) => {
      counts[place] = (counts[place] ?? 0) + since(count, old?.answered_within[place]);
    });
  }
  return {
    perSecond: calls / Math.max(now.at - before.at, 0.001),
    failedShare: calls ? 1 - good / calls : null,
    p50: percentile(counts, now.bounds_s, 0.5),
    p99: percentile(counts, now.bounds_s, 0.99),
  };
}
