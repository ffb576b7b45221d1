/** Figures as text. */

const NONE = "–";

export function count(value: number): string {
  return Intl.NumberFormat("en", { maximumFractionDigits: 0 }).format(value);
}

export function rate(value: number): string {
  return Intl.NumberFormat("en", { maximumSignificantDigits: value >= 100 ? 4 : 3 }).format(value);
}

export function share(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  return Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 }).format(value);
}

export function milliseconds(seconds: number | null): string {
  if (seconds === null) return NONE;
  const ms = seconds * 1_000;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

export function ago(moment: string | null): string {
  if (moment === null) return "never";
  const minutes = Math.round((Date.now() - Date.parse(moment)) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 120) return `${minutes} min ago`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h ago` : `${Math.round(minutes / 1_440)} days ago`;
}
