"""The allocator's rules once more, written to be read and not to be fast: every question is answered by a search
through all blocks. Nothing is shared with memplan/allocator."""

from __future__ import annotations

from typing import Any

MIB = 2**20


class Piece:
    """A part of a segment, with the number that it got when it was made."""

    def __init__(self, start: int, size: int, number: int) -> None:
        self.start = start
        self.size = size
        self.number = number
        self.live = False
        self.mapped = True


class Chunk:
    """A segment: its pieces in order. `page` is 0 for one from cudaMalloc."""

    def __init__(self, start: int, stream: int, small: bool, page: int, number: int) -> None:
        self.start = start
        self.stream = stream
        self.small = small
        self.page = page
        self.number = number
        self.pieces: list[Piece] = []


class SlowAllocator:
    """The default pools with their settings in MiB, without roundings and garbage collection."""

    def __init__(
        self, ties: str = "segment", limit: int | None = None, rounding: int = 20, capacity: int | None = None,
        expandable: bool = False,
    ) -> None:  # fmt: skip
        self.ties = ties
        self.limit = None if limit is None else limit * MIB
        self.rounding = rounding * MIB
        self.capacity = capacity
        self.expandable = expandable
        self.chunks: list[Chunk] = []
        self.changes: list[tuple[str, int, int]] = []  # what, where, how much
        self.made = 0
        self.next_start = 1 << 32
        self.reserved = 0

    def number(self) -> int:
        self.made += 1
        return self.made

    def everything(self) -> list[tuple[Chunk, Piece]]:
        return [(chunk, piece) for chunk in self.chunks for piece in chunk.pieces]

    def order(self, found: tuple[Chunk, Piece]) -> tuple[int, int, int, int]:
        """By stream, size, and then as the release has it."""
        chunk, piece = found
        tie = {"address": 0, "serial": piece.number, "segment": chunk.number}[self.ties]
        return (chunk.stream, piece.size, tie, piece.start)

    def allocate(self, size: int, stream: int) -> tuple[int, int] | None:
        """Where the block is and how large, or None."""
        rounded = -(-size // 512) * 512
        small = rounded <= MIB
        found = self.search(rounded, stream, small)
        if found is None:
            found = self.grow(rounded, stream, small)
        if found is None and self.limit is not None and self.release_oversize(rounded, stream, small):
            found = self.grow(rounded, stream, small)
        if found is None:
            self.empty()
            found = self.grow(rounded, stream, small)
        if found is None:
            return None
        chunk, piece = found
        rest = piece.size - rounded
        if small or self.expandable:
            splits = rest >= 512
        else:
            splits = rest > MIB and (self.limit is None or rounded < self.limit)
        if splits:
            front = Piece(piece.start, rounded, self.number() if self.ties == "serial" else 0)
            chunk.pieces.insert(chunk.pieces.index(piece), front)
            piece.start += rounded
            piece.size = rest
            piece = front
        piece.live = True
        return piece.start, piece.size

    def search(self, size: int, stream: int, small: bool) -> tuple[Chunk, Piece] | None:
        fitting = [
            (chunk, piece)
            for chunk, piece in self.everything()
            if chunk.stream == stream
            and chunk.small == small
            and not piece.live
            and piece.mapped
            and piece.size >= size
        ]
        fitting.sort(key=self.order)
        if not fitting:
            return None
        best = 0
        if self.expandable:
            while best + 1 < len(fitting) and self.reach(*fitting[best + 1]) < self.reach(*fitting[best]):
                best += 1
        piece = fitting[best][1]
        if self.limit is not None and size < self.limit <= piece.size:
            return None
        if self.limit is not None and size >= self.limit and piece.size >= size + self.rounding:
            return None
        return fitting[best]

    def reach(self, chunk: Chunk, piece: Piece) -> int:
        after = chunk.pieces.index(piece) + 1
        grows = after < len(chunk.pieces) and not chunk.pieces[after].mapped
        return piece.size + (chunk.pieces[after].size if grows else 0)

    def grow(self, size: int, stream: int, small: bool) -> tuple[Chunk, Piece] | None:
        if self.expandable:
            return self.extend(size, stream, small)
        total = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
        if self.capacity is not None and self.reserved + total > self.capacity:
            return None
        chunk = Chunk(self.next_start, stream, small, 0, self.number())
        chunk.pieces.append(Piece(chunk.start, total, chunk.number))
        self.next_start += total
        self.chunks.append(chunk)
        self.change("alloc", chunk.start, total)
        return chunk, chunk.pieces[0]

    def extend(self, size: int, stream: int, small: bool) -> tuple[Chunk, Piece] | None:
        for chunk in self.chunks:
            if chunk.stream != stream or chunk.small != small:
                continue
            pieces = chunk.pieces
            for first in range(len(pieces)):
                # A row of pieces that nobody uses: it begins unmapped, or with one free piece before an unmapped one.
                last = first + 1 == len(pieces)
                if pieces[first].live or (pieces[first].mapped and (last or pieces[first + 1].mapped)):
                    continue
                room = 0
                for piece in pieces[first:]:
                    if piece.live:
                        break
                    room += piece.size
                if room >= size:
                    return self.fill(chunk, pieces[first].start, size)
        chunk = Chunk(self.next_start, stream, small, 2 * MIB if small else 20 * MIB, self.number())
        memory = 1 << 44 if self.capacity is None else self.capacity + self.capacity // 8
        space = Piece(chunk.start, -(-memory // chunk.page) * chunk.page, chunk.number)
        space.mapped = False
        chunk.pieces.append(space)
        self.next_start += space.size
        self.chunks.append(chunk)
        return self.fill(chunk, chunk.start, size) if space.size >= size else None

    def fill(self, chunk: Chunk, start: int, size: int) -> tuple[Chunk, Piece] | None:
        """Map the unmapped pieces from `start` on, one after another, until there is a free one of the size there."""
        while True:
            at = next(number for number, piece in enumerate(chunk.pieces) if piece.start == start)
            piece = chunk.pieces[at]
            missing = size
            if piece.mapped:
                if piece.size >= size:
                    return chunk, piece
                missing = size - piece.size
                at += 1
                piece = chunk.pieces[at]
            total = -(-min(missing, piece.size) // chunk.page) * chunk.page
            if self.capacity is not None and self.reserved + total > self.capacity:
                return None
            if total < piece.size:
                rest = Piece(piece.start + total, piece.size - total, self.number() if self.ties == "serial" else 0)
                rest.mapped = False
                chunk.pieces.insert(at + 1, rest)
                piece.size = total
            piece.mapped = True
            self.change("map", piece.start, total)
            self.merge(chunk, piece)

    def free(self, start: int) -> None:
        chunk, piece = next(found for found in self.everything() if found[1].start == start and found[1].live)
        piece.live = False
        self.merge(chunk, piece)

    def merge(self, chunk: Chunk, piece: Piece) -> None:
        """`piece` takes over neighbours in its state, and keeps its number."""
        for step in (-1, 1):
            at = chunk.pieces.index(piece)
            if 0 <= at + step < len(chunk.pieces):
                other = chunk.pieces[at + step]
                if not other.live and other.mapped == piece.mapped:
                    piece.start = min(piece.start, other.start)
                    piece.size += other.size
                    chunk.pieces.remove(other)

    def release_oversize(self, size: int, stream: int, small: bool) -> bool:
        assert self.limit is not None
        wanted = max(size, self.limit)
        free = [
            found
            for found in self.everything()
            if found[0].stream == stream and found[0].small == small and not found[1].live and not found[0].page
        ]
        free.sort(key=self.order)
        enough = [found for found in free if found[1].size >= wanted]
        if enough:
            self.drop(enough[0][0])
            return True
        gone = 0
        for chunk, piece in reversed(free):
            if gone >= wanted or piece.size < self.limit:
                break
            gone += piece.size
            self.drop(chunk)
        return gone >= wanted

    def empty(self) -> None:
        for small in (False, True):
            free = [
                found
                for found in self.everything()
                if found[0].small == small and not found[1].live and found[1].mapped
            ]
            free.sort(key=self.order)
            for chunk, piece in free:
                if chunk.page:
                    self.unmap(chunk, piece)
                elif len(chunk.pieces) == 1:
                    self.drop(chunk)

    def drop(self, chunk: Chunk) -> None:
        (piece,) = chunk.pieces
        self.chunks.remove(chunk)
        self.change("free", piece.start, -piece.size)

    def unmap(self, chunk: Chunk, piece: Piece) -> None:
        first = -(-(piece.start - chunk.start) // chunk.page) * chunk.page + chunk.start
        last = (piece.start + piece.size - chunk.start) // chunk.page * chunk.page + chunk.start
        if first >= last:
            return
        at = chunk.pieces.index(piece)
        parts = [piece]
        if first > piece.start:
            parts.insert(0, Piece(piece.start, first - piece.start, self.number() if self.ties == "serial" else 0))
        end = piece.start + piece.size
        if end > last:
            parts.append(Piece(last, end - last, self.number() if self.ties == "serial" else 0))
        chunk.pieces[at : at + 1] = parts
        piece.start, piece.size, piece.mapped = first, last - first, False
        self.change("unmap", first, first - last)
        self.merge(chunk, piece)
        if len(chunk.pieces) == 1:
            self.chunks.remove(chunk)

    def change(self, what: str, where: int, size: int) -> None:
        self.reserved += size
        self.changes.append((what, where, abs(size)))

    def state(self) -> list[Any]:
        return sorted((piece.start, piece.size, piece.live, piece.mapped) for _, piece in self.everything())
