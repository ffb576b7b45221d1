/** Small charts; each says in words what it shows. */

interface Line {
  name: string;
  values: (number | null)[];
}

const WIDTH = 240;
const HEIGHT = 48;

/** Values over time, the newest at the right, all on one scale from 0. */
export function Lines({ label, lines, places }: { label: string; lines: Line[]; places: number }) {
  const highest = Math.max(...lines.flatMap((line) => line.values.map((value) => value ?? 0)), Number.EPSILON);
  const x = (place: number, length: number) => WIDTH - ((length - 1 - place) * WIDTH) / (places - 1);
  const y = (value: number) => HEIGHT - 1 - (value / highest) * (HEIGHT - 4);
  const path = (values: (number | null)[]) => {
    let pen = "M";
    const drawn = values.map((value, place) => {
      if (value === null) {
        pen = "M";
        return "";
      }
      const step = `${pen}${x(place, values.length).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
      return step;
    });
    return drawn.join("");
  };
  return (
    <svg class="lines" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
      {lines.map((line) => (
        <path key={line.name} class={`line-${line.name}`} d={path(line.values)} />
      ))}
    </svg>
  );
}

export interface Part {
  name: string;
  share: number;
  text: string;
}

/** Parts of a whole in a row, with what each is below. */
export function Parts({ label, parts }: { label: string; parts: Part[] }) {
  const shown = parts.filter((part) => part.share > 0);
  let left = 0;
  return (
    <figure class="parts" aria-label={label}>
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        {shown.map((part) => {
          const at = left;
          left += part.share * 100;
          return <rect key={part.name} class={part.name} x={at} y="0" width={part.share * 100} height="6" />;
        })}
      </svg>
      <ul>
        {shown.map((part) => (
          <li key={part.name} class={part.name}>
            {part.text}
          </li>
        ))}
      </ul>
    </figure>
  );
}

/** How often each size was. */
export function Bars({ label, bars }: { label: string; bars: { name: string; share: number }[] }) {
  const highest = Math.max(...bars.map((bar) => bar.share), Number.EPSILON);
  return (
    <figure class="bars" aria-label={label}>
      <ul>
        {bars.map((bar) => (
          <li key={bar.name}>
            <span>{bar.name}</span>
            <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
              <rect width={(bar.share / highest) * 100} height="10" />
            </svg>
            <span>{Math.round(bar.share * 100)} %</span>
          </li>
        ))}
      </ul>
    </figure>
  );
}
