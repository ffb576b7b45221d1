"""`tidegate tune`: tries how a model is best run on this machine, and writes it into the model's config."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from contract.card import ENCODED_SUFFIX
from contract.manifest import Manifest, Tuned
from contract.model_config import from_pbtxt, tuning_of
from contract.repository import CONFIG
from export.configs import shared_files
from export.errors import ExportError
from export.machine import machine
from export.versions import Versions
from loadtest.errors import BadLoad, LoadError
from loadtest.slo import Slo
from loadtest.tune.load import load_process
from loadtest.tune.report import Subject, write_report
from loadtest.tune.search import axes
from loadtest.tune.tuner import Outcome, Plan, Trial, Tuner
from tidegate.client import find_server
from tidegate.errors import BadInput, CommandError
from tidegate.live import reloading
from tidegate.load import PREFIX, TIMERS
from tidegate.models import repository
from tidegate.scratch import Scratch, serving
from tidegate.settings import inherited_environment, up_settings

# Over the SLO: what is later than this much is late, and one need not wait for it.
_DEADLINE_BOUNDS, _LEAST_DEADLINE_S = 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for.

    Attributes:
        model: NAME, tried with tensors, or NAME_encoded, tried with photographs.
        batch_size: Images in a request.
        images: None: photographs that come with scikit-learn.
        out: None: in the state directory.
    """

    model: str
    slo: str
    rate: float | None
    batch_size: int
    images: Path | None
    duration_s: float
    budget_s: float
    repeats: int
    out: Path | None


def tune(asked: Asked) -> None:
    """Search, compare, report, and write what won.

    Raises:
        BadInput: The SLO or the model is not one.
        CommandError: A server or the load could not be started, or the repository not be written.
    """
    try:
        slo = Slo.parse(asked.slo)
        plan = Plan(slo, asked.rate, asked.duration_s, asked.budget_s, asked.repeats)
        with repository() as store:
            versions = Versions(store, asked.model.removesuffix(ENCODED_SUFFIX))
            manifest = _live(versions)
            with serving(store, manifest) as scratch:
                subject, outcome = _search(asked, plan, manifest, scratch)
            report = write_report(subject, outcome, asked.out or up_settings().state_dir / "tune")
            _conclude(versions, subject, outcome)
    except BadLoad as error:
        raise BadInput(str(error)) from error
    except LoadError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    Console().print(f"report: {escape(str(report))}", soft_wrap=True)


def _live(versions: Versions) -> Manifest:
    live = versions.live
    if live is None or live not in versions.published:
        raise BadInput(
            f"{versions.name} has no live version with a manifest in {versions.store.location}: `tidegate export` makes one"
        )
    return versions.manifest(live)


def _search(asked: Asked, plan: Plan, manifest: Manifest, scratch: Scratch) -> tuple[Subject, Outcome]:
    config = from_pbtxt((shared_files(asked.model, manifest, [manifest])[f"{asked.model}/{CONFIG}"] or b"").decode())
    here, encoded = machine(), asked.model.endswith(ENCODED_SUFFIX)
    tried = axes(
        cores=here.cores,
        max_batch_size=config.max_batch_size,
        on_gpu=config.instance_group[0].kind == config.instance_group[0].KIND_GPU,
    )
    images = "1 image" if asked.batch_size == 1 else f"{asked.batch_size} images"
    load = f"{'photographs' if encoded else 'tensors'} over gRPC, {images} a request, Poisson arrivals"
    subject = Subject(asked.model, manifest.version, asked.slo, load, here, datetime.now(UTC))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("search", total=asked.budget_s)

        def tell(trial: Trial) -> None:
            elapsed = progress.tasks[0].elapsed or 0.0
            over = elapsed > asked.budget_s
            progress.update(task, description="last runs" if over else "search", completed=elapsed)
            progress.console.print(escape(f"{trial.tuning}: {trial.reading.sentence()}"), soft_wrap=True)

        with load_process(_environment(asked, plan, scratch)) as run:
            tuner = Tuner(lambda tuning: scratch.serve(asked.model, tuning), run, plan, tell)
            return subject, tuner.find(tuning_of(config), tried)


def _environment(asked: Asked, plan: Plan, scratch: Scratch) -> dict[str, str]:
    server = scratch.server
    settings = {
        "GRPC": server.grpc,
        "HTTP": server.http,
        "METRICS": server.metrics,
        "KEY": server.key,
        "MODEL": asked.model.removesuffix(ENCODED_SUFFIX),
        "KIND": "encoded" if asked.model.endswith(ENCODED_SUFFIX) else "tensors",
        "BATCH_SIZE": str(asked.batch_size),
        "SLO": asked.slo,
        "DEADLINE_S": str(max(_LEAST_DEADLINE_S, _DEADLINE_BOUNDS * max(plan.slo.bounds.values()))),
    }
    if asked.images is not None:
        settings["IMAGES"] = str(asked.images)
    inherited = {name: value for name, value in inherited_environment().items() if not name.startswith(PREFIX)}
    return TIMERS | inherited | {PREFIX + name: value for name, value in settings.items()}


def _conclude(versions: Versions, subject: Subject, outcome: Outcome) -> None:
    console = Console()
    comparison, winner = outcome.comparison, outcome.winner
    if comparison is None:
        console.print(f"the config that is there is the best of what was tried: {outcome.before}", soft_wrap=True)
        return
    before, after = (", ".join(f"{each:.4g}" for each in found) for found in (comparison.before, comparison.after))
    console.print(f"{outcome.figure}:\n  {after} with {outcome.best}\n  {before} with {outcome.before}", soft_wrap=True)
    if winner is None:
        console.print("not better by more than the noise: the config stays as it is")
        return
    tuned = Tuned(
        tuning=winner,
        slo=subject.slo,
        load=subject.load,
        figure=outcome.figure,
        before=comparison.before,
        after=comparison.after,
        machine=subject.machine,
        tuned_at=datetime.now(UTC).replace(microsecond=0),
    )
    with reloading() as reload:
        versions.tune(subject.version, subject.model, tuned, reload)
    console.print(f"{subject.model}/{CONFIG} and the manifest of version {subject.version} have it")
