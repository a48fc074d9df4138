"""Arrow schemas of the record tables.

Dense int64 numbers (`seed_no`, `call_no`, …) join tables inside a version; `record_id`, a hash of the content,
is the identity across versions. Content is a list of messages, each a role and a list of parts, so that turns,
tool calls and images fit: a part carries text, or the digest of a blob with its media type.
"""

from __future__ import annotations

import pyarrow as pa

PART = pa.struct([("type", pa.string()), ("text", pa.string()), ("blob", pa.string()), ("media_type", pa.string())])
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("parts", pa.list_(PART))]))

#: A seed or evaluation record, in one part: teacher, gold, unlabeled, validation, test. `facts` and `meta` are JSON.
SEED = pa.schema(
    [
        ("seed_no", pa.int64()),
        ("record_id", pa.string()),
        ("task", pa.string()),
        ("part", pa.string()),
        ("messages", MESSAGES),
        ("context", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("rationale", pa.string()),
        ("source_id", pa.string()),
        ("source_revision", pa.string()),
        ("source_row", pa.int64()),
        ("licence", pa.string()),
        ("subject_key", pa.string()),
        ("annotator", pa.string()),
        ("language", pa.string()),
        ("skeleton", pa.string()),
        ("composition", pa.string()),
        ("facts", pa.string()),
        ("meta", pa.string()),
    ]
)

#: What a prompt set holds: one row a task and style, the template's text and its digest.
PROMPT = pa.schema(
    [
        ("prompt_no", pa.int64()),
        ("record_id", pa.string()),
        ("task", pa.string()),
        ("style", pa.string()),
        ("system", pa.string()),
        ("user", pa.string()),
        ("version", pa.string()),
        ("labels", pa.list_(pa.string())),
    ]
)

#: One answer a teacher gave, or failed to give, for one question. `messages` is what a student would read and say.
#: An input that is not a seed's own stands in `input`, and the record ids of the seeds it was made from in `origins`;
#: `licences` are those of the passages that were shown; `teacher` says which of several teachers gave it.
CANDIDATE = pa.schema(
    [
        ("candidate_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_no", pa.int64()),
        ("seed_record_id", pa.string()),
        ("call_no", pa.int64()),
        ("kind", pa.string()),
        ("task", pa.string()),
        ("sample", pa.int32()),
        ("messages", MESSAGES),
        ("answer", pa.string()),
        ("rationale", pa.string()),
        ("status", pa.string()),
        ("failure", pa.string()),
        ("finish_reason", pa.string()),
        ("input", pa.string()),
        ("origins", pa.list_(pa.string())),
        ("licences", pa.list_(pa.string())),
        ("teacher", pa.string()),
    ]
)

#: One question put to a teacher. Times and costs stay out of the content root: the table belongs to the run.
CALL = pa.schema(
    [
        ("call_no", pa.int64()),
        ("request_key", pa.string()),
        ("teacher", pa.string()),
        ("revision", pa.string()),
        ("served_model", pa.string()),
        ("prompt", pa.string()),
        ("status", pa.string()),
        ("finish_reason", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_micros", pa.int64()),
        ("reused", pa.bool_()),
        ("sent_at", pa.string()),
        ("received_at", pa.string()),
    ]
)

#: What a call read: many to many, so few-shot, judges and revisions fit. `kind` is seed, exemplar, call, judged or
#: passage; `ref_no` is a seed, a call, or a passage.
CALL_INPUT = pa.schema([("call_no", pa.int64()), ("kind", pa.string()), ("ref_no", pa.int64())])

#: What a teacher said of its answer, token by token: log-probabilities in nats of the token and of the likeliest ones,
#: and the log of the mass of all others.
FEATURE = pa.schema(
    [
        ("feature_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_record_id", pa.string()),
        ("call_no", pa.int64()),
        ("task", pa.string()),
        ("answer", pa.string()),
        (
            "tokens",
            pa.list_(
                pa.struct(
                    [
                        ("token", pa.string()),
                        ("logprob", pa.float64()),
                        ("top", pa.list_(pa.struct([("token", pa.string()), ("logprob", pa.float64())]))),
                        ("rest", pa.float64()),
                    ]
                )
            ),
        ),
    ]
)

#: One of several teachers' answer to a question that all of them were asked; `agrees` where most of them gave it.
VOTE = pa.schema(
    [
        ("vote_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_no", pa.int64()),
        ("seed_record_id", pa.string()),
        ("call_no", pa.int64()),
        ("teacher", pa.string()),
        ("task", pa.string()),
        ("sample", pa.int32()),
        ("answer", pa.string()),
        ("failure", pa.string()),
        ("agrees", pa.bool_()),
    ]
)

#: A text that a teacher was shown beside an input.
PASSAGE = pa.schema(
    [
        ("passage_no", pa.int64()),
        ("record_id", pa.string()),
        ("text", pa.string()),
        ("source_id", pa.string()),
        ("licence", pa.string()),
    ]
)

#: What a judge said of one answer, or of two: one row a criterion. `method` is rate, compare or critique. `score` is on
#: the judge's scale; `winner` is first or second, as the judge saw them, or tie.
JUDGEMENT = pa.schema(
    [
        ("judgement_no", pa.int64()),
        ("record_id", pa.string()),
        ("call_no", pa.int64()),
        ("judged_call_no", pa.int64()),
        ("other_call_no", pa.int64()),
        ("seed_record_id", pa.string()),
        ("task", pa.string()),
        ("method", pa.string()),
        ("criterion", pa.string()),
        ("score", pa.float64()),
        ("winner", pa.string()),
        ("text", pa.string()),
        ("status", pa.string()),
        ("failure", pa.string()),
    ]
)

#: A judge's score of one answer to one seed, by criterion: what a rule on scores reads. Content, where a JUDGEMENT is
#: evidence of its run.
RATING = pa.schema(
    [
        ("rating_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_record_id", pa.string()),
        ("task", pa.string()),
        ("answer", pa.string()),
        ("criterion", pa.string()),
        ("score", pa.float64()),
    ]
)

#: What one reviewer said of one record: accept, reject, unsure, or blank where the file came back without a verdict.
#: `candidate_record_id` is the record's id, a hash of its content; `shown` is a digest of what the reviewer saw.
VERDICT = pa.schema(
    [
        ("verdict_no", pa.int64()),
        ("record_id", pa.string()),
        ("candidate_record_id", pa.string()),
        ("task", pa.string()),
        ("reviewer", pa.string()),
        ("verdict", pa.string()),
        ("critical", pa.list_(pa.string())),
        ("comment", pa.string()),
        ("shown", pa.string()),
    ]
)

#: Two answers to one seed, held against each other. `verdict` is ok (then `winner` is first or second), tie,
#: same_answer, order_bias or failed (then `failure` is its class).
COMPARISON = pa.schema(
    [
        ("comparison_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_no", pa.int64()),
        ("seed_record_id", pa.string()),
        ("task", pa.string()),
        ("method", pa.string()),
        ("messages", MESSAGES),
        ("first", pa.string()),
        ("second", pa.string()),
        ("first_call_no", pa.int64()),
        ("second_call_no", pa.int64()),
        ("first_finish_reason", pa.string()),
        ("second_finish_reason", pa.string()),
        ("first_score", pa.float64()),
        ("second_score", pa.float64()),
        ("verdict", pa.string()),
        ("winner", pa.string()),
        ("failure", pa.string()),
    ]
)

#: A preference to train on: what the student reads, the better answer and the worse one, each with its call.
PREFERENCE = pa.schema(
    [
        ("preference_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_no", pa.int64()),
        ("seed_record_id", pa.string()),
        ("task", pa.string()),
        ("split", pa.string()),
        ("messages", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_call_no", pa.int64()),
        ("rejected_call_no", pa.int64()),
        ("chosen_score", pa.float64()),
        ("rejected_score", pa.float64()),
        ("licence", pa.string()),
        ("source_id", pa.string()),
        ("subject_key", pa.string()),
    ]
)

#: The egress gate's look at one question before it was asked: send, mask or refuse. `request_key` is that of the call
#: as it was sent, none where it was refused. Findings are kinds and counts, never values.
EGRESS = pa.schema(
    [
        ("look_no", pa.int64()),
        ("seed_no", pa.int64()),
        ("seed_record_id", pa.string()),
        ("request_key", pa.string()),
        ("endpoint", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("findings", pa.list_(pa.struct([("kind", pa.string()), ("count", pa.int64())]))),
        ("policy", pa.string()),
    ]
)

#: One rule's look at one candidate.
LOOK = pa.struct(
    [
        ("rule", pa.string()),
        ("version", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("detail", pa.string()),
    ]
)

#: One wide row a candidate: the verdict, the reason of the first failing rule, and every look.
DECISION = pa.schema(
    [
        ("candidate_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_no", pa.int64()),
        ("task", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("looks", pa.list_(LOOK)),
    ]
)

#: A dropped twin and the record that stands in for it.
DUPLICATE = pa.schema(
    [
        ("cluster", pa.int64()),
        ("kept_no", pa.int64()),
        ("dropped_no", pa.int64()),
        ("similarity", pa.float64()),
        ("rule", pa.string()),
    ]
)

#: What a student trains on. `origin` is gold or teacher; a teacher example names its call, a gold one names none.
#: `origins` are the record ids of the seeds that a written input was made from; licence, source and subject are theirs.
EXAMPLE = pa.schema(
    [
        ("example_no", pa.int64()),
        ("record_id", pa.string()),
        ("origin", pa.string()),
        ("seed_no", pa.int64()),
        ("seed_record_id", pa.string()),
        ("call_no", pa.int64()),
        ("task", pa.string()),
        ("split", pa.string()),
        ("messages", MESSAGES),
        ("weight", pa.float64()),
        ("licence", pa.string()),
        ("source_id", pa.string()),
        ("subject_key", pa.string()),
        ("rationale", pa.string()),
        ("origins", pa.list_(pa.string())),
    ]
)

#: One arm's answer to one evaluation item. `arm` is student, control, teacher, linear_teacher, linear_gold, nearest, …
ITEM_SCORE = pa.schema(
    [
        ("item_no", pa.int64()),
        ("record_id", pa.string()),
        ("seed_record_id", pa.string()),
        ("task", pa.string()),
        ("part", pa.string()),
        ("subject_key", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("output", pa.string()),
        ("score", pa.float64()),
    ]
)

#: Columns that number or locate a row; they are not content, so they stay out of its identity.
NOT_IDENTITY = frozenset(
    {
        "seed_no",
        "prompt_no",
        "candidate_no",
        "call_no",
        "passage_no",
        "vote_no",
        "feature_no",
        "judgement_no",
        "judged_call_no",
        "other_call_no",
        "comparison_no",
        "first_call_no",
        "second_call_no",
        "preference_no",
        "chosen_call_no",
        "rejected_call_no",
        "example_no",
        "item_no",
        "rating_no",
        "verdict_no",
        "record_id",
        "source_row",
    }
)

TABLES = {
    "seed": SEED,
    "prompt": PROMPT,
    "candidate": CANDIDATE,
    "call": CALL,
    "call_input": CALL_INPUT,
    "passage": PASSAGE,
    "vote": VOTE,
    "feature": FEATURE,
    "judgement": JUDGEMENT,
    "rating": RATING,
    "verdict": VERDICT,
    "comparison": COMPARISON,
    "preference": PREFERENCE,
    "egress": EGRESS,
    "decision": DECISION,
    "duplicate": DUPLICATE,
    "example": EXAMPLE,
    "item_score": ITEM_SCORE,
}

#: Bumped when a table's columns change; stored fixtures of every released number stay readable.
SCHEMA_VERSION = 1
