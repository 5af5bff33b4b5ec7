"""From a sweep file to the jobs that it asks for."""

from harness.sweep.plan import AutoencoderJob, Job, Plan, SamplerSpec, TimingJob, TrainJob, job_from_json, make_plan
from harness.sweep.spec import Sweep, load_sweep

__all__ = [
    "AutoencoderJob",
    "Job",
    "Plan",
    "SamplerSpec",
    "Sweep",
    "TimingJob",
    "TrainJob",
    "job_from_json",
    "load_sweep",
    "make_plan",
]
