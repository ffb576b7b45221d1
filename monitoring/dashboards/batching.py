"""*Batching and GPU*: how full batches are, why they are no fuller, and what the hardware does."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.panels import BYTES, PLAIN, SECONDS, SHARE, Levels, Query, dashboard, heat, lines

_M = 'model=~"$model"'


def _rate(metric: str) -> str:
    return f"rate({metric}{{{_M}}}[$__rate_interval])"


def build() -> Dashboard:
    """The dashboard."""
    mean = (
        f"sum by (model) ({_rate('tidegate_batch_size_sum')}) / sum by (model) ({_rate('tidegate_batch_size_count')})"
    )
    largest = f"max by (model) (tidegate_max_batch_size{{{_M}}})"
    return dashboard(
        "tidegate-batching",
        "Batching and GPU",
        "Throughput comes from full batches: how full they are, and what keeps them small.",
        [
            (
                "Batches",
                [
                    lines(
                        "Images in a batch, mean",
                        "As Triton executed them, and what would fit. Far below, with a queue that is not empty: see why, beside.",
                        PLAIN,
                        Query(mean, "{{model}}"),
                        Query(largest, "{{model}} at most"),
                    ),
                    lines(
                        "Fill",
                        "The mean batch, of the largest. Low is right while there are few calls; low under load wastes the "
                        "hardware: a longer max_queue_delay_microseconds, or fewer instances.",
                        SHARE,
                        Query(f"({mean}) / {largest}", "{{model}}"),
                    ),
                    lines(
                        "Why batches were no larger",
                        "full: the largest or a preferred size. delay-over: the wait for more was over: few calls, or too short a "
                        "wait. queue-empty: nothing more was there and the model waits for nothing: give it a max_queue_delay. "
                        "not-batched: its config has no dynamic_batching.",
                        SHARE,
                        Query(
                            f"sum by (model, reason) ({_rate('tidegate_batches_total')})"
                            f" / on (model) group_left () sum by (model) ({_rate('tidegate_batches_total')})",
                            "{{model}} {{reason}}",
                        ),
                        stacked=True,
                    ),
                    heat(
                        "Sizes of batches",
                        "How many batches had how many images. All in the lowest row: calls come one by one.",
                        PLAIN,
                        Query(f"sum by (le) (increase(tidegate_batch_size_bucket{{{_M}}}[$__rate_interval]))"),
                    ),
                ],
            ),
            (
                "Queue",
                [
                    lines(
                        "Wait in the queue, mean",
                        "And how long a batch waits for company: several times that is a queue; runbook TidegateQueueGrows.",
                        SECONDS,
                        Query('tidegate:queue_seconds:mean_5m{model=~"$model"}', "{{model}}"),
                        Query(f"max by (model) (tidegate_max_queue_delay_seconds{{{_M}}})", "{{model}} for company"),
                    ),
                    lines(
                        "Requests that wait",
                        "In Triton's queues. Grows without end: more work than can be done; runbook TidegateQueueGrows.",
                        PLAIN,
                        Query(f"sum by (model) (nv_inference_pending_request_count{{{_M}}})", "{{model}}"),
                    ),
                    lines(
                        "Compute of a request, mean",
                        "Input, inference and output together. A step up with a version is the version's: Rollouts.",
                        SECONDS,
                        Query('tidegate:compute_seconds:mean_5m{model=~"$model"}', "{{model}}"),
                    ),
                    lines(
                        "Requests that Triton failed",
                        "REJECTED: its queue was full. CANCELED: the caller went away. BACKEND: the model failed, see Triton's log.",
                        PLAIN,
                        Query(
                            f"sum by (model, reason) ({_rate('nv_inference_request_failure')})", "{{model}} {{reason}}"
                        ),
                    ),
                ],
            ),
            (
                "Hardware",
                [
                    lines(
                        "GPU utilisation",
                        "No data without a GPU. Red with a queue: the GPU is the bound; more of them, or a faster format. Low "
                        "with a queue: more instances of the model.",
                        SHARE,
                        Query("nv_gpu_utilization", "{{gpu_uuid}}"),
                        levels=Levels(0.8, 0.95),
                    ),
                    lines(
                        "GPU memory used",
                        "No data without a GPU. Red: the next model may not load; unload one, or fewer instances.",
                        SHARE,
                        Query("nv_gpu_memory_used_bytes / nv_gpu_memory_total_bytes", "{{gpu_uuid}}"),
                        levels=Levels(0.8, 0.95),
                    ),
                    lines(
                        "GPU power, of its limit",
                        "No data without a GPU. At the limit the clock is lowered: that is full use, or a hot machine.",
                        SHARE,
                        Query("nv_gpu_power_usage / nv_gpu_power_limit", "{{gpu_uuid}}"),
                    ),
                    lines(
                        "Processor of Triton's machine",
                        "Red with a queue: the processor is the bound; more replicas, or INT8.",
                        SHARE,
                        Query("nv_cpu_utilization", "{{instance}}"),
                        levels=Levels(0.8, 0.95),
                    ),
                    lines(
                        "Memory of Triton's machine",
                        "Near its size: processes will be killed; fewer models or instances.",
                        BYTES,
                        Query("nv_cpu_memory_used_bytes", "{{instance}} used"),
                        Query("nv_cpu_memory_total_bytes", "{{instance}} size"),
                    ),
                ],
            ),
        ],
    )
