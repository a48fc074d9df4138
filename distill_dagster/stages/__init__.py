"""The stages: one file per artifact, each a function from immutable input versions to one immutable version."""

#: Artifacts that a source owns, in order.
SOURCE_ARTIFACTS = ("seed_set", "eval_set", "prompt_set")
#: Artifacts that make a pipeline's data half, in order.
DATA_ARTIFACTS = ("teacher_model", "teacher_outputs", "filtered_dataset")
#: Artifacts that make a pipeline's student half, in order.
STUDENT_ARTIFACTS = (
    "initial_student",
    "student_checkpoint",
    "control_checkpoint",
    "eval_report",
    "deployed_student",
)
