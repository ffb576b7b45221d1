"""The kinds of panels that the dashboards are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

SECONDS = "s"
SHARE = "percentunit"
PER_SECOND = "reqps"
BYTES = "bytes"
BYTES_PER_SECOND = "Bps"
PLAIN = "short"

# Of the 24 columns and the rows of Grafana's grid.
_WIDTH = 12
_HEIGHT = 8
_FIGURE_WIDTH = 6
_FIGURE_HEIGHT = 4

_SOURCE = models.DataSourceRef("prometheus", "${datasource}")

Panel = Builder[models.Panel]


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks Prometheus.

    Attributes:
        legend: What each series is called, with `{{label}}` in it.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Levels:
    """When a panel turns yellow, and when red; where low is bad, red is the lower one."""

    yellow: float
    red: float


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    levels: Levels | None = None,
    stacked: bool = False,
    exemplars: bool = False,
) -> Panel:
    """Series over time.

    Args:
        description: What it shows, and what to do when it is red.
        exemplars: Points that lead to the trace of a call.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(_SOURCE)
        .unit(unit)
        .min(0)
        .span(_WIDTH)
        .height(_HEIGHT)
        .legend(common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM))
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .targets(_targets(queries, exemplars=exemplars))
    )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(40)
    if levels is not None:
        panel.thresholds(_thresholds(levels)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.LINE)
        )
    return panel


def figure(title: str, description: str, unit: str, query: Query, levels: Levels | None = None) -> Panel:
    """One number for each series, as it is now."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(_SOURCE)
        .unit(unit)
        .span(_FIGURE_WIDTH)
        .height(_FIGURE_HEIGHT)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets(_targets([query]))
    )
    if levels is not None:
        panel.thresholds(_thresholds(levels))
    return panel


def heat(title: str, description: str, unit: str, query: Query) -> Panel:
    """How a histogram's buckets fill over time.

    Args:
        query: By `le` alone.
    """
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(_SOURCE)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .span(_WIDTH)
        .height(_HEIGHT)
        .targets(_targets([query], of_buckets=True))
    )


def dashboard(uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Panel]]]) -> models.Dashboard:
    """A dashboard of named rows, for one or more models.

    Args:
        uid: In Grafana's addresses.
    """
    built = (
        builders.Dashboard(f"Tidegate / {title}")
        .uid(uid)
        .description(description)
        .tags(["tidegate"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            builders.QueryVariable("model")
            .label("Model")
            .datasource(_SOURCE)
            .query("label_values(tidegate_stage_duration_seconds_count, model)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
        .link(
            builders.DashboardLink("Tidegate")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["tidegate"])
            .keep_time(True)
        )
    )
    for name, panels in rows:
        built.with_row(builders.Row(name))
        for panel in panels:
            built.with_panel(panel)
    return built.build()


def _targets(
    queries: Sequence[Query], *, exemplars: bool = False, of_buckets: bool = False
) -> list[Builder[variants.Dataquery]]:
    targets: list[Builder[variants.Dataquery]] = []
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query.expr).legend_format(query.legend)
        if exemplars:
            target.exemplar(True)
        if of_buckets:
            target.format(prometheus_models.PromQueryFormat.HEATMAP).legend_format("{{le}}")
        targets.append(target)
    return targets


def _thresholds(levels: Levels) -> builders.ThresholdsConfig:
    """The first step is the colour below every value."""
    if levels.red < levels.yellow:
        steps = [(None, "red"), (levels.red, "yellow"), (levels.yellow, "green")]
    else:
        steps = [(None, "green"), (levels.yellow, "yellow"), (levels.red, "red")]
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value, colour) for value, colour in steps])
    )
