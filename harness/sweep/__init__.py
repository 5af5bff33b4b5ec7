"""From a sweep file to the jobs that it asks for."""

from harness.sweep.jobs import AutoencoderJob, Job, TimingJob, TrainJob, job_from_json
from harness.sweep.plan import Plan, draw_jobs, make_plan, needed_by, settle
from harness.sweep.samplers import SamplerSpec
from harness.sweep.spec import LoggingSpec, Sweep, load_sweep

__all__ = [
    "AutoencoderJob",
    "Job",
    "LoggingSpec",
    "Plan",
    "SamplerSpec",
    "Sweep",
    "TimingJob",
    "TrainJob",
    "draw_jobs",
    "job_from_json",
    "load_sweep",
    "make_plan",
    "needed_by",
    "settle",
]
