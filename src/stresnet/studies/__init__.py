"""Studies: recipes that differ in a few fields, trained on the same folds with the same seeds, and compared."""

from stresnet.studies.plan import Plan, plan_study
from stresnet.studies.results import StudyResult
from stresnet.studies.run import run_study
from stresnet.studies.schema import Cell, Study, load_study

__all__ = ["Cell", "Plan", "Study", "StudyResult", "load_study", "plan_study", "run_study"]
