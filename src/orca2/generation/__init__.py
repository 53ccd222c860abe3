"""Answers from models, greedy: token ids in and out, or chats in and replies out."""

from orca2.generation.protocol import (
    Backend,
    BackendSpec,
    Chat,
    FinishReason,
    Format,
    Generation,
    Generator,
    Reply,
    StudentFiles,
    Unanswered,
)

__all__ = [
    "Backend",
    "BackendSpec",
    "Chat",
    "FinishReason",
    "Format",
    "Generation",
    "Generator",
    "Reply",
    "StudentFiles",
    "Unanswered",
]
