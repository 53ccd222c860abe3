"""Answers from models, greedy: token ids in and out, or chats in and replies out."""

from orca2.generation.protocol import (
    Backend,
    BackendSpec,
    Chat,
    ChatReply,
    FinishReason,
    Format,
    Generation,
    Generator,
    StudentFiles,
    Unanswered,
)

__all__ = [
    "Backend",
    "BackendSpec",
    "Chat",
    "ChatReply",
    "FinishReason",
    "Format",
    "Generation",
    "Generator",
    "StudentFiles",
    "Unanswered",
]
