"""*Cache and limits*: what never reaches Triton, because it was answered before or refused."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.panels import PER_SECOND, PLAIN, SHARE, Levels, Query, dashboard, lines

_M = 'model=~"$model"'
_REFUSED = 'outcome="limit_exceeded"'


def _rate(metric: str, selector: str = _M) -> str:
    return f"rate({metric}{{{selector}}}[$__rate_interval])"


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "tidegate-limits",
        "Cache and limits",
        "What is answered from the cache, what is refused and by which limit, and who uses how much.",
        [
            (
                "Cache",
                [
                    lines(
                        "Share answered from the cache",
                        "Of the calls that the cache may answer; those that waited for an equal one count. Far below its usual: "
                        "runbook TidegateCacheCollapsed.",
                        SHARE,
                        Query('tidegate:cache_hits:ratio_rate10m{model=~"$model"}', "{{model}}"),
                    ),
                    lines(
                        "Calls by what the cache did",
                        "bypass: the model did not opt in, the caller asked for none, or the call failed before. All misses of a "
                        "model that is asked the same again and again: its answers may be over max_entry_bytes.",
                        PER_SECOND,
                        Query(f"sum by (status) ({_rate('tidegate_cache_requests_total')})", "{{status}}"),
                        stacked=True,
                    ),
                    lines(
                        "Hits by tier",
                        "l1 is the worker's memory, l2 Redis. l2 gone: Redis is away, the log says so.",
                        PER_SECOND,
                        Query(f"sum by (tier) ({_rate('tidegate_cache_hits_total')})", "{{tier}}"),
                        stacked=True,
                    ),
                    lines(
                        "Values in Redis that are none of ours",
                        "Anything but 0: another program writes there, or gateways have different secrets (TIDEGATE_CACHE__SECRET).",
                        PER_SECOND,
                        Query(f"sum by (model) ({_rate('tidegate_cache_rejected_total')})", "{{model}}"),
                    ),
                ],
            ),
            (
                "Limits of the server",
                [
                    lines(
                        "Refused by reason",
                        "key-… and tenant-…: a caller used up what it may, which is right. The others: there is no room; runbook "
                        "TidegateSheds.",
                        PER_SECOND,
                        Query(f"sum by (reason) ({_rate('tidegate_refused_calls_total', '')})", "{{reason}}"),
                        stacked=True,
                    ),
                    lines(
                        "Share refused for want of room",
                        "Red: more than 1 %; runbook TidegateSheds.",
                        SHARE,
                        Query('tidegate:refused:ratio_rate5m{model=~"$model"}', "{{model}}"),
                        levels=Levels(0.001, 0.01),
                    ),
                    lines(
                        "Calls in flight, and how many may be",
                        "Close together: runbook TidegateSaturated.",
                        PLAIN,
                        Query("sum(tidegate_in_flight_calls)", "in flight"),
                        Query("sum(tidegate_max_in_flight_calls)", "at most"),
                    ),
                    lines(
                        "Adaptive limit by model",
                        "How many calls of a model are let in at once, as its latency allows. Falling: Triton became slower; "
                        "go to Latency.",
                        PLAIN,
                        Query(f"sum by (model) (tidegate_concurrency_limit{{{_M}}})", "{{model}}"),
                    ),
                    lines(
                        "Why the adaptive limit moved",
                        "room: calls took as long as alone, and it grew. slower: they took longer, go to Latency. dropped: calls ran "
                        "out of time or Triton's queue was full, runbook TidegateSheds. probe: for a moment few are let in, to measure "
                        "how long one takes alone; probed: they were.",
                        PER_SECOND,
                        Query(f"sum by (reason) ({_rate('tidegate_concurrency_limit_moves_total')})", "{{reason}}"),
                        stacked=True,
                    ),
                    lines(
                        "Calls that wait for their turn",
                        "Under the adaptive limit. Never 0: the model has more work than it can do; runbook TidegateSheds.",
                        PLAIN,
                        Query(f"sum by (model) (tidegate_waiting_calls{{{_M}}})", "{{model}}"),
                    ),
                ],
            ),
            (
                "Tenants and keys",
                [
                    lines(
                        "Calls by tenant, the ten with most",
                        "_none: keys without a tenant, and callers that are not known. One that crowds out the others: give it a "
                        "limit, tidegate tenants limit NAME.",
                        PER_SECOND,
                        Query(f"topk(10, sum by (tenant) ({_rate('tidegate_tenant_calls_total', '')}))", "{{tenant}}"),
                    ),
                    lines(
                        "Images by tenant, the ten with most",
                        "Images that were answered, a second: what the hardware works for.",
                        PLAIN,
                        Query(f"topk(10, sum by (tenant) ({_rate('tidegate_tenant_images_total', '')}))", "{{tenant}}"),
                    ),
                    lines(
                        "Calls by key, the ten with most",
                        "_none: tokens, and callers without a key. The console names them; one that crowds out the others: revoke it, "
                        "or give its tenant a limit, tidegate tenants limit NAME.",
                        PER_SECOND,
                        Query(f"topk(10, sum by (key) ({_rate('tidegate_key_calls_total', '')}))", "{{key}}"),
                    ),
                    lines(
                        "Refused by their own limits, by tenant",
                        "A tenant that is refused for long needs a larger limit, or a word with its owner.",
                        PER_SECOND,
                        Query(
                            f"sum by (tenant) ({_rate('tidegate_tenant_calls_total', _REFUSED)})",
                            "{{tenant}}",
                        ),
                    ),
                ],
            ),
        ],
    )
