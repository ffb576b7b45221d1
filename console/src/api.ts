/** Calls to the gateway this page came from, with the key that was typed in. */

const KEY = "tidegate-key";

export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export const storedKey = (): string | null => sessionStorage.getItem(KEY);

export function keep(key: string | null): void {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/** Throws Refused where the gateway does not answer with 2xx, and TypeError where nobody answers. */
export async function call(key: string, path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  if (key) headers.set("authorization", `Bearer ${key}`);
  const response = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store" });
  if (!response.ok) throw new Refused(response.status, await reason(response));
  return response;
}

export async function read<T>(key: string, path: string): Promise<T> {
  return (await (await call(key, path)).json()) as T;
}

async function reason(response: Response): Promise<string> {
  try {
    return ((await response.json()) as { error: string }).error;
  } catch {
    return `the server answered with ${response.status}`;
  }
}

export const told = (error: unknown): string =>
  error instanceof Refused ? error.message : "The server does not answer.";
