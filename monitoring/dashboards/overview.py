"""*Overview*: the golden signals by model, the objectives, and what is left of their budgets."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.panels import (
    BYTES_PER_SECOND,
    PER_SECOND,
    PLAIN,
    SECONDS,
    SHARE,
    Levels,
    Query,
    dashboard,
    figure,
    lines,
)

_CALLS = 'tidegate_stage_duration_seconds_count{stage="total", model=~"$model"}'
_BUCKETS = 'tidegate_stage_duration_seconds_bucket{stage="total", outcome="ok", model=~"$model"}'


def _budget_left(slo: str) -> Query:
    errors = f'max(tidegate:slo_errors:ratio_rate3d{{slo="{slo}", model=~"$model"}})'
    return Query(f'1 - {errors} / scalar(tidegate:slo_budget{{slo="{slo}"}})')


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "tidegate-overview",
        "Overview",
        "How the service does: read it from the top; the first red panel says where to go on.",
        [
            (
                "Objectives",
                [
                    figure(
                        "Availability budget left, 3 days",
                        "What is left of the allowed share of failed calls, over three days, of the worst model chosen. "
                        "Red: spent. Calls by outcome says what fails; the runbook is TidegateAvailabilityBurnsSlowly.",
                        SHARE,
                        _budget_left("availability"),
                        Levels(0.5, 0),
                    ),
                    figure(
                        "Latency budget left, 3 days",
                        "What is left of the allowed share of slow answers, over three days, of the worst model chosen. "
                        "Red: spent. Go to Latency; the runbook is TidegateLatencyBurnsSlowly.",
                        SHARE,
                        _budget_left("latency"),
                        Levels(0.5, 0),
                    ),
                    figure(
                        "Alerts that fire",
                        "Red: open Alertmanager; each alert names its page in docs/runbooks.md.",
                        PLAIN,
                        Query('count(ALERTS{alertname=~"Tidegate.*", alertstate="firing"}) or vector(0)'),
                        Levels(1, 1),
                    ),
                    figure(
                        "Triton answers",
                        "1 where a gateway reads Triton's metrics. Red: runbook TidegateUpstreamDown.",
                        PLAIN,
                        Query("tidegate_upstream_up", "{{instance}}"),
                        Levels(1, 0.5),
                    ),
                ],
            ),
            (
                "Traffic and errors",
                [
                    lines(
                        "Calls by outcome",
                        "Calls that ended, a second. What callers do wrong (invalid_argument, not_found, unauthenticated, "
                        "permission_denied, too_large, limit_exceeded) is theirs to mend; internal, unavailable, "
                        "deadline_exceeded and overloaded are ours: runbook TidegateAvailabilityBurnsFast.",
                        PER_SECOND,
                        Query(f"sum by (outcome) (rate({_CALLS}[$__rate_interval]))", "{{outcome}}"),
                        stacked=True,
                    ),
                    lines(
                        "Share of calls that fail, by model",
                        "For reasons that are not the caller's, over 5 minutes. Red: 14.4 times the budget, which pages after an "
                        "hour; runbook TidegateAvailabilityBurnsFast.",
                        SHARE,
                        Query('tidegate:slo_errors:ratio_rate5m{slo="availability", model=~"$model"}', "{{model}}"),
                        levels=Levels(0.001, 0.0144),
                    ),
                    lines(
                        "Images by model",
                        "Images in calls that were answered, a second. A drop while calls go on: callers send smaller batches.",
                        PLAIN,
                        Query(
                            'sum by (model) (rate(tidegate_images_total{model=~"$model"}[$__rate_interval]))',
                            "{{model}}",
                        ),
                    ),
                    lines(
                        "Bytes in and out",
                        "Of serialized requests and answers. Where it nears the network's rate, more machines or smaller "
                        "images are the remedy: photographs (NAME_encoded) are smaller than tensors.",
                        BYTES_PER_SECOND,
                        Query('sum(rate(tidegate_request_bytes_total{model=~"$model"}[$__rate_interval]))', "in"),
                        Query('sum(rate(tidegate_response_bytes_total{model=~"$model"}[$__rate_interval]))', "out"),
                    ),
                ],
            ),
            (
                "Latency and saturation",
                [
                    lines(
                        "Latency by model",
                        "Of answered calls. Red: over the objective; go to Latency, which says which stage it is.",
                        SECONDS,
                        *(
                            Query(
                                f"histogram_quantile({quantile}, sum by (model, le) (rate({_BUCKETS}[$__rate_interval])))",
                                f"{{{{model}}}} p{quantile * 100:g}",
                            )
                            for quantile in (0.5, 0.99)
                        ),
                        levels=Levels(0.2, 0.3),
                        exemplars=True,
                    ),
                    lines(
                        "Share of answers over 0.3 s, by model",
                        "Over 5 minutes. Red: 14.4 times the budget; runbook TidegateLatencyBurnsFast.",
                        SHARE,
                        Query('tidegate:slo_errors:ratio_rate5m{slo="latency", model=~"$model"}', "{{model}}"),
                        levels=Levels(0.01, 0.144),
                    ),
                    lines(
                        "In flight, of what is taken on",
                        "Red: calls will be refused; runbook TidegateSaturated.",
                        SHARE,
                        Query("tidegate:in_flight:ratio", "{{instance}}"),
                        levels=Levels(0.6, 0.8),
                    ),
                    lines(
                        "Calls lost with a worker, open streams",
                        "Calls whose worker died, in 5 minutes: anything but 0 is wrong; runbook TidegateWorkerDied. Streams "
                        "that are open, for comparison.",
                        PLAIN,
                        Query("sum(increase(tidegate_calls_lost_total[5m]))", "lost"),
                        Query("sum(tidegate_open_streams)", "open streams"),
                    ),
                    figure(
                        "Certificate, time left",
                        "Of the public ports; no data without TLS. Red: renew it; runbook TidegateCertificateExpires.",
                        SECONDS,
                        Query("min(tidegate_certificate_expiry_timestamp_seconds) - time()"),
                        Levels(21 * 86_400, 3 * 86_400),
                    ),
                ],
            ),
        ],
    )
