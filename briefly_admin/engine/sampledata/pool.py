"""Realistic words and vectors, made once from the seed; rows pick from them on the server."""

import random
from collections.abc import Iterator
from typing import Final

from briefly_admin.plans.unified import EMBEDDING_DIMENSION

SIZE: Final = 499
"""Rows of the pool of words: a prime, so that any stride walks through all of it."""

VECTORS: Final = 64
"""Vectors of the pool. A chunk's is the sum of two, so that neighbours on disk do not repeat each other."""

COLUMNS: Final = ("k", "name", "title", "filename", "file_type", "paragraph", "question")
_FILE_TYPES: Final = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
}


def words(seed: int) -> Iterator[tuple[int | str, ...]]:
    """SIZE rows of COLUMNS; the same for the same seed."""
    # Here, for it takes a tenth of the time in which a process starts, and few of them make sample data.
    from faker import Faker

    fake = Faker("en_US")
    fake.seed_instance(seed)
    extensions = list(_FILE_TYPES)
    for k in range(SIZE):
        extension = extensions[k % len(extensions)]
        title = fake.catch_phrase()
        filename = f"{title.lower().replace(' ', '-').replace('/', '-')}.{extension}"
        question = f"What does {fake.company()} say about {fake.bs()}?"
        paragraph = fake.paragraph(nb_sentences=5)
        yield (k, fake.name(), title, filename, _FILE_TYPES[extension], paragraph, question)


def vectors(seed: int) -> Iterator[tuple[int, str]]:
    """VECTORS rows of (k, a vector as pgvector's text); the same for the same seed."""
    draw = random.Random(seed).gauss  # noqa: S311 - sample data
    for k in range(VECTORS):
        yield k, f"[{','.join([f'{draw(0, 0.02):.6f}' for _ in range(EMBEDDING_DIMENSION)])}]"
