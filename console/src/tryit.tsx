/** Drop images, see what a model makes of them and where the time went. */

import { useEffect, useId, useRef, useState } from "preact/hooks";
import { call, told } from "./api";
import { Parts } from "./charts";
import type { Model } from "./figures";
import { milliseconds } from "./words";

const MOST = 16;
const ENCODED = "_encoded";

interface Prediction {
  label: string;
  index: number;
  score: number;
}

interface Answer {
  predictions: Prediction[];
  version: string;
}

interface Tried {
  id: number;
  name: string;
  url: string;
  error?: string;
  answer?: Answer;
  cache?: string;
  /** Seconds by stage, in order. */
  stages: [string, number][];
  /** Seconds until the answer was here. */
  elapsed: number;
}

export function TryIt({ keyText, models }: { keyText: string; models: Model[] }) {
  const [tried, setTried] = useState<Tried[]>([]);
  const [said, setSaid] = useState("");
  const [over, setOver] = useState(false);
  const [name, setName] = useState("");
  const [version, setVersion] = useState("");
  const [topK, setTopK] = useState(3);
  const next = useRef(0);
  const urls = useRef<string[]>([]);
  const ids = useId();
  const names = new Set(models.map((model) => model.model));
  const choices = models.filter(
    (model) => model.photographs && !(model.model.endsWith(ENCODED) && names.has(model.model.slice(0, -ENCODED.length))),
  );
  const model = choices.find((each) => each.model === name) ?? choices[0];
  const versions = model?.versions.filter((each) => each.ready).map((each) => each.version) ?? [];
  const asked = versions.includes(version) ? version : "";

  useEffect(() => () => urls.current.forEach(URL.revokeObjectURL), []);

  const send = async (files: File[]) => {
    if (!model || !files.length) return;
    urls.current.forEach(URL.revokeObjectURL);
    urls.current = [];
    setTried([]);
    const taken = files.slice(0, MOST);
    setSaid(`Asking ${model.model}…`);
    const done: Tried[] = [];
    for (const file of taken) {
      const url = URL.createObjectURL(file);
      urls.current.push(url);
      done.push({ id: next.current++, name: file.name, url, ...(await classify(keyText, model.model, asked, topK, file)) });
      setTried([...done]);
    }
    const best = done.map((each) => each.error ?? each.answer?.predictions[0]?.label ?? "nothing");
    const left = files.length - taken.length;
    setSaid(`${done.length} classified: ${best.join(", ")}.${left ? ` ${left} left out: ${MOST} at once.` : ""}`);
  };

  if (!model) return <p>No model that takes images is ready.</p>;
  return (
    <>
      <div class="fields">
        <label>
          Model
          <select value={model.model} onChange={(event) => setName(event.currentTarget.value)}>
            {choices.map((each) => (
              <option key={each.model}>{each.model}</option>
            ))}
          </select>
        </label>
        <label>
          Version
          <select value={asked} onChange={(event) => setVersion(event.currentTarget.value)}>
            <option value="">as others get</option>
            {versions.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <label>
          Labels
          <input
            type="number"
            min="1"
            max="20"
            value={topK}
            onChange={(event) => setTopK(Math.min(20, Math.max(1, Math.round(event.currentTarget.valueAsNumber) || 1)))}
          />
        </label>
      </div>
      <label
        class={over ? "drop over" : "drop"}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          void send([...(event.dataTransfer?.files ?? [])]);
        }}
      >
        <span>Drop images here, or choose them</span>
        <input
          type="file"
          accept="image/jpeg,image/png,image/webp"
          multiple
          aria-describedby={`${ids}-said`}
          onChange={(event) => {
            const input = event.currentTarget;
            void send([...(input.files ?? [])]).then(() => (input.value = ""));
          }}
        />
      </label>
      <p id={`${ids}-said`} role="status" aria-label="What was classified" class="said">
        {said}
      </p>
      <ul class="tried">
        {tried.map((each) => (
          <Result key={each.id} {...each} />
        ))}
      </ul>
    </>
  );
}

function Result({ name, url, error, answer, cache, stages, elapsed }: Tried) {
  const inside = stages.reduce((sum, [, seconds]) => sum + seconds, 0);
  const parts = [...stages, ["way", Math.max(0, elapsed - inside)] as [string, number]];
  const best = answer?.predictions[0]?.score ?? 0;
  return (
    <li class="result">
      <img src={url} alt="" />
      <div>
        <h3>{name}</h3>
        {error && <p class="error">{error}</p>}
        {answer && (
          <table>
            <caption>
              version {answer.version}, cache: {cache}
            </caption>
            <thead>
              <tr>
                <th scope="col">label</th>
                <th scope="col">score</th>
                <th scope="col" class="wide">
                  of the best
                </th>
              </tr>
            </thead>
            <tbody>
              {answer.predictions.map((prediction) => (
                <tr key={prediction.index}>
                  <th scope="row">{prediction.label}</th>
                  <td>{prediction.score.toFixed(2)}</td>
                  <td class="wide">
                    <Likely odds={Math.exp(prediction.score - best)} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
        {stages.length > 0 && (
          <Parts
            label={`Where ${milliseconds(elapsed)} went`}
            parts={parts.map(([stage, seconds]) => ({
              name: stage,
              share: seconds / elapsed,
              text: `${stage} ${milliseconds(seconds)}`,
            }))}
          />
        )}
      </div>
    </li>
  );
}

/** How likely a label is, of the likeliest: scores are logits. */
function Likely({ odds }: { odds: number }) {
  return (
    <svg class="likely" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label={odds.toPrecision(2)}>
      <rect width={odds * 100} height="10" />
    </svg>
  );
}

async function classify(key: string, model: string, version: string, topK: number, file: File) {
  const query = new URLSearchParams({ top_k: String(topK), ...(version && { version }) });
  const began = performance.now();
  try {
    const response = await call(key, `v1/models/${encodeURIComponent(model)}/classify?${query}`, {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: file,
    });
    const answer = (await response.json()) as Answer;
    const elapsed = (performance.now() - began) / 1_000;
    const cache = response.headers.get("x-tidegate-cache") ?? "unknown";
    return { answer, cache, stages: stagesOf(response.headers.get("server-timing") ?? ""), elapsed };
  } catch (error) {
    return { error: told(error), stages: [], elapsed: 0 };
  }
}

/** From `auth;dur=0.1, read;dur=0.2`, in milliseconds. */
function stagesOf(timing: string): [string, number][] {
  return [...timing.matchAll(/([a-z]+);dur=([\d.]+)/g)].map(([, stage, ms]) => [stage ?? "", Number(ms) / 1_000]);
}
