"""From a sweep file to the jobs that it asks for."""

from harness.sweep.plan import Job, Plan, SamplerSpec, TimingJob, TrainJob, make_plan
from harness.sweep.spec import Sweep, load_sweep

__all__ = ["Job", "Plan", "SamplerSpec", "Sweep", "TimingJob", "TrainJob", "load_sweep", "make_plan"]
