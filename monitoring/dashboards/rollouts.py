"""*Rollouts*: versions side by side, and the replicas that serve them."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.panels import PER_SECOND, PLAIN, SECONDS, SHARE, Levels, Query, dashboard, lines

_M = 'model=~"$model"'
_FAILED = 'outcome=~"internal|unavailable|deadline_exceeded|overloaded"'


def _calls(selector: str) -> str:
    return f'rate(tidegate_stage_duration_seconds_count{{stage="total", {selector}}}[$__rate_interval])'


def build() -> Dashboard:
    """The dashboard."""
    all_calls = f"sum by (model, version) ({_calls(_M)})"
    failed = f"sum by (model, version) ({_calls(f'{_FAILED}, {_M}')})"
    buckets = f'tidegate_stage_duration_seconds_bucket{{stage="upstream", outcome="ok", {_M}}}'
    return dashboard(
        "tidegate-rollouts",
        "Rollouts",
        "Is the new version as good as the old one? And which replicas serve.",
        [
            (
                "Versions",
                [
                    lines(
                        "Calls by version",
                        "What each version is asked. None of a version that should have some: its weight, beside.",
                        PER_SECOND,
                        Query(all_calls, "{{model}} {{version}}"),
                        stacked=True,
                    ),
                    lines(
                        "Weight by version",
                        "What the traffic policy gives each version. A canary at 0 that should not be: it was rolled back; "
                        "runbook TidegateCanaryRolledBack.",
                        SHARE,
                        Query(f"max by (model, version) (tidegate_traffic_weight{{{_M}}})", "{{model}} {{version}}"),
                    ),
                    lines(
                        "Share that fails, by version",
                        "Red for the new version alone: tidegate models rollback NAME.",
                        SHARE,
                        Query(f"({failed} or 0 * {all_calls}) / {all_calls}", "{{model}} {{version}}"),
                        levels=Levels(0.001, 0.0144),
                    ),
                    lines(
                        "p99 in Triton, by version",
                        "The stage upstream alone, so that the cache does not flatter the older version. Slower than before: compare "
                        "the manifests' measurements, and roll back where it breaks the objective.",
                        SECONDS,
                        Query(
                            f"histogram_quantile(0.99, sum by (model, version, le) (rate({buckets}[$__rate_interval])))",
                            "{{model}} {{version}}",
                        ),
                    ),
                    lines(
                        "Shadow answers that differ",
                        "From those of the version that answers. More than the models' known difference: do not promote.",
                        PER_SECOND,
                        Query(
                            f"sum by (model) (rate(tidegate_shadow_disagreements_total{{{_M}}}[$__rate_interval]))",
                            "{{model}}",
                        ),
                    ),
                    lines(
                        "Canaries set to 0",
                        "How often, by reason; runbook TidegateCanaryRolledBack.",
                        PLAIN,
                        Query(
                            f"sum by (model, reason) (tidegate_canary_rollbacks_total{{{_M}}})", "{{model}} {{reason}}"
                        ),
                    ),
                ],
            ),
            (
                "Replicas",
                [
                    lines(
                        "Replicas that take calls",
                        "1 each. 0: it is ejected or away; runbook TidegateReplicaEjected.",
                        PLAIN,
                        Query("min by (replica) (tidegate_replica_up)", "{{replica}}"),
                    ),
                    lines(
                        "Ejections",
                        "In 5 minutes, by replica. One again and again: see to that Triton; runbook TidegateReplicaEjected.",
                        PLAIN,
                        Query("sum by (replica) (increase(tidegate_replica_ejections_total[5m]))", "{{replica}}"),
                    ),
                    lines(
                        "Retries by outcome",
                        "Requests that were sent once more, or could not be. Many: replicas fail; few successes among them: all "
                        "of them do.",
                        PER_SECOND,
                        Query(
                            f"sum by (outcome) (rate(tidegate_retries_total{{{_M}}}[$__rate_interval]))", "{{outcome}}"
                        ),
                        stacked=True,
                    ),
                    lines(
                        "Hedges",
                        "Slow requests that were sent to a second replica too. Many: one replica is slow.",
                        PER_SECOND,
                        Query(f"sum by (model) (rate(tidegate_hedges_total{{{_M}}}[$__rate_interval]))", "{{model}}"),
                    ),
                ],
            ),
        ],
    )
