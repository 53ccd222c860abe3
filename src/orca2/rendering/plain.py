"""Plain text to ids: what stands between two control tokens is never one itself, whatever it spells."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from orca2.errors import ModelError
from orca2.reasoning import MARKERS
from orca2.rendering.tokenizers import backend_of, content_backend


class PlainText:
    """Encodes texts in the middle of a conversation. Can be sent to workers.

    Raises:
        ModelError: the tokenizer has no `tokenizers` backend.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, opening: bool = False, plain: Collection[str] = ()) -> None:
        """`opening`: for texts that begin a conversation, before which SentencePiece tokenizers may put a blank.
        `plain`: added tokens that no text may spell though they are not special.
        """
        self.backend = content_backend(tokenizer, opening, plain)
        added = backend_of(tokenizer).get_added_tokens_decoder()
        self.control = {id: token.content for id, token in added.items() if token.special or token.content in plain}
        self._shown = {id: text for id, text in self.control.items() if text in (*MARKERS, *MARKERS.values())}
        if tokenizer.pad_token is not None:
            self.control[int(tokenizer.pad_token_id)] = str(tokenizer.pad_token)
        # The unknown token is not a control token: it may stand for a character that the vocabulary lacks.
        self.control.pop(tokenizer.unk_token_id, None)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids without control tokens, but with the markers of a reasoning trace, which separate texts."""
        if self._shown.keys().isdisjoint(ids):
            return str(self.backend.decode(ids, skip_special_tokens=True))
        texts, begin = [], 0
        for place, id in enumerate(ids):
            if id in self._shown:
                texts += [self.backend.decode(ids[begin:place], skip_special_tokens=True), self._shown[id]]
                begin = place + 1
        return "".join([*texts, self.backend.decode(ids[begin:], skip_special_tokens=True)])

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Not part of what a backend pickles; without it, text would become control tokens in spawned workers.
        self.backend.encode_special_tokens = True

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text; never the id of a control token. Raises ModelError where one cannot be spelled."""
        batch = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        ids_of_texts = [encoding.ids for encoding in batch]
        for i, ids in enumerate(ids_of_texts):
            if not self.control.keys().isdisjoint(ids):
                ids_of_texts[i] = self._spelled(ids)
        return ids_of_texts

    def _spelled(self, ids: Iterable[int]) -> list[int]:
        """Ids in which control tokens, which merges can build from plain text, are spelled in characters."""
        spelled = []
        for id in ids:
            if id not in self.control:
                spelled.append(id)
                continue
            for character in self.control[id]:
                spelling = self.backend.token_to_id(character)
                if spelling is None or spelling in self.control:
                    raise ModelError(
                        f"the tokenizer reads the plain text {self.control[id]!r} as a control token and "
                        f"cannot spell it, for want of {character!r}; use another tokenizer"
                    )
                spelled.append(spelling)
        return spelled
