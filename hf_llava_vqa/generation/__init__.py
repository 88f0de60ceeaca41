"""Answering questions: records in, one prediction a question out, every picture read once.

`questions` says what is asked and makes its trees, `rows` reads trees with the model, `decoding` answers all their
questions together, `choosing` picks a token, `reference` answers through the stock `generate` and `vllm_engine` through
vLLM; `answering`, `candidates`, `answerability` and `self_questions` are what others call.
"""

from hf_llava_vqa.generation.answerability import score_answerability
from hf_llava_vqa.generation.answering import ENGINES, answer_questions
from hf_llava_vqa.generation.candidates import score_candidates
from hf_llava_vqa.generation.questions import Question, questions
from hf_llava_vqa.generation.self_questions import Asked, Asking, answer_after_asking, ask_questions
from hf_llava_vqa.generation.vllm_engine import VLLM_BATCH, load_vllm

__all__ = [
    "ENGINES",
    "VLLM_BATCH",
    "Asked",
    "Asking",
    "Question",
    "answer_after_asking",
    "answer_questions",
    "ask_questions",
    "load_vllm",
    "questions",
    "score_answerability",
    "score_candidates",
]
