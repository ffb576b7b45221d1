"""*Latency*: where did the p99 go."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.panels import SECONDS, SHARE, Query, dashboard, heat, lines

_MODEL = 'outcome="ok", model=~"$model"'
_STAGE_BUCKETS = f'tidegate_stage_duration_seconds_bucket{{stage!="total", {_MODEL}}}'
_BUCKETS = f'tidegate_stage_duration_seconds_bucket{{stage="total", {_MODEL}}}'
_TRITON = 'model=~"$model"'


def _quantile(quantile: float, by: str, buckets: str) -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({buckets}[$__rate_interval])))"


def _mean(stage: str) -> str:
    selector = f'{{stage="{stage}", {_MODEL}}}[$__rate_interval]'
    total = f'{{stage="total", {_MODEL}}}[$__rate_interval]'
    return (
        f"sum(rate(tidegate_stage_duration_seconds_sum{selector}))"
        f" / sum(rate(tidegate_stage_duration_seconds_count{total}))"
    )


def _triton_mean(duration: str) -> str:
    return (
        f"sum(rate(nv_inference_{duration}_duration_us{{{_TRITON}}}[$__rate_interval])) / 1e6"
        f" / sum(rate(nv_inference_request_success{{{_TRITON}}}[$__rate_interval]))"
    )


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "tidegate-latency",
        "Latency",
        "Which stage of a call takes the time. Answered calls alone: failed ones have times of their own.",
        [
            (
                "The whole call",
                [
                    lines(
                        "Percentiles",
                        "Of whole calls, with a trace for some where tracing is on. Over the objective of 0.3 s: the rows below say "
                        "which stage; runbook TidegateLatencyBurnsFast.",
                        SECONDS,
                        *(Query(_quantile(q, "", _BUCKETS), f"p{q * 100:g}") for q in (0.5, 0.9, 0.99, 0.999)),
                        exemplars=True,
                    ),
                    heat(
                        "All calls",
                        "How many calls took how long. Two bands are two kinds of calls: hits and misses of the cache, or two "
                        "models. A band that rises is load; one that appears is a change.",
                        SECONDS,
                        Query(f"sum by (le) (increase({_BUCKETS}[$__rate_interval]))"),
                    ),
                ],
            ),
            (
                "By stage",
                [
                    lines(
                        "p99 of each stage, stacked",
                        "The slowest hundredth of each stage. Those of one call do not add up to another's, so that the stack is "
                        "higher than the p99 above; the stage that grew is the one to see to, as the runbook "
                        "TidegateLatencyBurnsFast says by stage.",
                        SECONDS,
                        Query(_quantile(0.99, "stage", _STAGE_BUCKETS), "{{stage}}"),
                        stacked=True,
                    ),
                    lines(
                        "p50 of each stage, stacked",
                        "The usual call. Where this is flat while the p99 grows, few calls are slow: look at the traces of those.",
                        SECONDS,
                        Query(_quantile(0.5, "stage", _STAGE_BUCKETS), "{{stage}}"),
                        stacked=True,
                    ),
                    lines(
                        "Mean of each stage, stacked",
                        "Means add up: the stack is the mean call. A stage that some calls leave out counts as 0 for them.",
                        SECONDS,
                        *(
                            Query(_mean(stage), stage)
                            for stage in ("auth", "read", "limit", "cache", "upstream", "serialise")
                        ),
                        stacked=True,
                    ),
                    lines(
                        "Share of the time that is Triton's",
                        "Low: the gateway or the callers take the time. High and slow: go to Batching and GPU.",
                        SHARE,
                        Query(f"({_mean('upstream')}) / ({_mean('total')})", "upstream"),
                    ),
                ],
            ),
            (
                "Within Triton",
                [
                    lines(
                        "Queue and compute, mean",
                        "By Triton's own count, of the requests that reached it: it tells sums and no percentiles. The queue grew: "
                        "runbook TidegateQueueGrows. Compute grew: larger batches, a slower version, or another load on the machine.",
                        SECONDS,
                        Query(_triton_mean("queue"), "queue"),
                        Query(_triton_mean("compute_input"), "compute: input"),
                        Query(_triton_mean("compute_infer"), "compute: inference"),
                        Query(_triton_mean("compute_output"), "compute: output"),
                        stacked=True,
                    ),
                    lines(
                        "On the way to Triton and back, mean",
                        "What the gateway waited, less what Triton says the request took: gRPC on both sides and the network "
                        "between. Over a few milliseconds: processors are used up, or the network is slow.",
                        SECONDS,
                        Query(
                            f'clamp_min(sum(rate(tidegate_stage_duration_seconds_sum{{stage="upstream", {_MODEL}}}'
                            "[$__rate_interval])) / sum(rate(tidegate_stage_duration_seconds_count"
                            f"{{stage=\"upstream\", {_MODEL}}}[$__rate_interval])) - {_triton_mean('request')}, 0)",
                            "way",
                        ),
                    ),
                ],
            ),
        ],
    )
