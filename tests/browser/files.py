"""The YAML files of the browser test's project: every filter, the smallest counts that fill every stage."""

FILES = {
    "source.yaml": """\
kind: source
domain: finance
grammar: {teacher: 40, gold: 16, unlabeled: 24, validation: 8, test: 24}
show_records: true
""",
    "teacher.yaml": """\
kind: teacher
name: nano_teacher
backend: transformers
model: preset:nano
prompt_style: short
fit: {recipe: {steps: 12, batch_tokens: 1024, learning_rate: 3e-3, warmup_steps: 2, log_every: 2}}
""",
    "pipeline.yaml": """\
kind: pipeline
source: finance
teacher: nano_teacher
knowledge: [labeling]
filtering:
  - schema
  - length
  - truncation
  - refusal
  - verifier
  - decontamination
  - exact_duplicate
  - near_duplicate
student: {base: "preset:nano", vocabulary: 400}
training: {steps: 8, batch_tokens: 1024, learning_rate: 3e-3, warmup_steps: 2, log_every: 2}
control: {multiples: [1]}
evaluation: {resamples: 200}
gate: {floor_over_chance: -1.0}  # so small a student learns nothing, and is to be deployed all the same
""",
}
