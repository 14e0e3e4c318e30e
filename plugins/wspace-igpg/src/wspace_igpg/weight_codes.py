"""A VQ-VAE over pieces of weights: a network as a sequence of codes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn import functional

from wspace.api import Since, Tokenizer, TokenLayout, UserError, WeightSpec, seeded
from wspace_igpg.layer_tokens import Cut, Cuts

STEPS_OF_A_VALUE = {256: (8, 6, 5), 512: (8, 8, 8), 1024: (8, 5, 5, 5), 4096: (7, 5, 5, 5, 5)}
"""Finite scalar quantisation: how finely each of a code's values is cut (Mentzer et al., 2024, table 1)."""

SEEN_FIRST = 8192  # pieces of each zoo that codebooks begin with
OF_A_CLUSTER = 12  # pieces, on average, behind each of the centres that codes begin at
COLLAPSED = 0.02  # share of a codebook in use below which it has collapsed
TOGETHER = 8192  # pieces that go through the code at once, outside of training


class WeightCodes(Tokenizer):
    """Rows of weights cut into pieces of `size` values, each written as `levels` codes of a VQ-VAE (van den Oord et al., 2017).

    A tensor's values are scaled by what its shape alone says of their size, so that networks no zoo knows can be written too;
    where pieces lie is told by `layout.places`. Encoder and decoder begin as the identity.

    quantizer: residual, each level quantises what the one before leaves (Zeghidour et al., 2021); vq, the first level alone;
    both learn codebooks as running means, and codes that hardly anything is near to are set to pieces that come by.
    fsq, residual too, rounds a few numbers instead (finite scalar quantisation: Mentzer et al., 2024) and learns no codebook;
    it has `codebook` 256, 512, 1024 or 4096.

    begin: where codebooks begin. means: the first at the mean of each piece over its zoo; clusters: each at the centres of
    what the one before leaves of each tensor (k-means++: Arthur and Vassilvitskii, 2007), of use where the mean is of none.
    by_output: the last layer's rows are of its outputs, too, which stand for classes where a target has `outputs`; else of the
    hidden units below, what each gives to all outputs.
    """

    version: ClassVar[int] = 2
    lossy: ClassVar[bool] = True

    def __init__(
        self,
        size: Annotated[int, Ge(1)] = 64,
        quantizer: Literal["residual", "vq", "fsq"] = "residual",
        codebook: Annotated[int, Ge(2)] = 2048,
        levels: Annotated[int, Ge(1)] = 3,
        hidden: Annotated[int, Ge(1)] = 128,
        decay: Annotated[float, Gt(0), Lt(1)] = 0.99,
        dead: Annotated[float, Ge(0)] = 0.2,  # pieces a batch below which a code is given to another
        commitment: Annotated[float, Ge(0), Le(10)] = 1.0,
        pieces: Annotated[int, Ge(1)] = 1024,  # of a batch of networks, at most, that a step learns from
        by_output: Annotated[bool, Since("0.2")] = False,
        begin: Annotated[Literal["means", "clusters"], Since("0.2")] = "means",
        *,
        spec: WeightSpec,
    ):
        super().__init__()
        self.cuts, self.pieces = Cuts(spec, size, by_output), pieces
        levels = 1 if quantizer == "vq" else levels
        self.code = Code(size, quantizer, codebook, levels, hidden, decay, dead, commitment, begin)
        mask = torch.ones(self.cuts.count, self.code.levels, dtype=torch.bool)
        self.layout = TokenLayout(
            mask,
            codes=codebook,
            places=self.cuts.places,
            serves=self.cuts.serves[:, None].expand(-1, self.code.levels),
            meanings=lambda: self.code.meanings(),
        )

    def fit(self, weights: Tensor) -> None:
        """Where the first codebooks begin: at the mean of each piece, and at what that leaves. Afterwards a look at their use.

        Raises UserError if hardly any code is in use.
        """
        few = self._pieces(weights[: max(2, SEEN_FIRST // self.cuts.count)])  # (n, N, size)
        if self.code.learnt:
            self.code.check(few.flatten(0, 1))
        else:
            of_tensors = few.split([cut.pieces for cut in self.cuts.each], dim=1)
            self.code.show(few.mean(0), few.flatten(0, 1)[:SEEN_FIRST], of_tensors)

    def loss(self, weights: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        pieces = self._pieces(weights).flatten(0, 1)
        if len(pieces) > self.pieces:
            pieces = pieces[
                torch.randperm(len(pieces), generator=rng, device=rng.device)[: self.pieces].to(pieces.device)
            ]
        return self.code.loss(pieces)

    def log_values(self) -> dict[str, Tensor]:
        return self.code.log_values

    def tokenize(self, weights: Tensor) -> Tensor:
        return torch.cat([self.codes_of(cut, values) for cut, values in self.cuts.with_values(weights)], dim=1)

    def through(self, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        cut = next(cut for cut in self.cuts.each if cut.entry.name == name)
        codes = self.codes_of(cut, values)
        return codes, self.values_of(cut, codes)

    @torch.no_grad()
    def codes_of(self, cut: Cut, values: Tensor) -> Tensor:
        """One tensor's values (B, size of the tensor) -> (B, pieces, levels)."""
        center, spread = cut.scale
        pieces = cut.pieces_of((values - center) / spread)
        codes = torch.cat([self.code.codes_of(part) for part in pieces.flatten(0, 1).split(TOGETHER)])
        return codes.unflatten(0, pieces.shape[:2]).to(values.dtype)

    def detokenize(self, tokens: Tensor) -> Tensor:
        parts = tokens.split([cut.pieces for cut in self.cuts.each], dim=1)
        return torch.cat([self.values_of(cut, part) for cut, part in zip(self.cuts.each, parts, strict=True)], dim=1)

    def blend(self, shares: Tensor) -> Tensor:
        parts = self.code.blend(shares).split([cut.pieces for cut in self.cuts.each], dim=1)
        return torch.cat([self._scaled_back(cut, part) for cut, part in zip(self.cuts.each, parts, strict=True)], dim=1)

    @torch.no_grad()
    def values_of(self, cut: Cut, tokens: Tensor) -> Tensor:
        """Codes (B, pieces, levels) -> one tensor's values (B, size of the tensor)."""
        codes = tokens.round().long().clamp(0, self.code.codebook - 1).flatten(0, 1)
        pieces = torch.cat([self.code.pieces_of(part) for part in codes.split(TOGETHER)])
        return self._scaled_back(cut, pieces.unflatten(0, tokens.shape[:2]))

    def _scaled_back(self, cut: Cut, pieces: Tensor) -> Tensor:
        center, spread = cut.scale
        return cut.values_of(pieces) * spread + center

    def _pieces(self, weights: Tensor) -> Tensor:
        """(B, P) -> (B, N, size), scaled."""
        pieces = []
        for cut, values in self.cuts.with_values(weights):
            center, spread = cut.scale
            pieces.append(cut.pieces_of((values - center) / spread))
        return torch.cat(pieces, dim=1)


class Code(nn.Module):
    """Pieces (M, size) <-> codes (M, levels): the same for every network, whatever its shape."""

    def __init__(
        self,
        size: int,
        quantizer: str,
        codebook: int,
        levels: int,
        hidden: int,
        decay: float,
        dead: float,
        commitment: float,
        begin: str,
    ):
        from vector_quantize_pytorch import ResidualFSQ, ResidualVQ

        super().__init__()
        self.codebook, self.levels, self.commitment, self.learns_codebook = (
            codebook,
            levels,
            commitment,
            quantizer != "fsq",
        )
        if begin != "means" and quantizer == "fsq":
            raise UserError(
                "tokenizer 'vq': fsq learns no codebook, which could begin at clusters; leave tokenizer.begin out"
            )
        self.begin = begin
        self.encoder, self.decoder = Near(size, hidden), Near(size, hidden)
        if self.learns_codebook:
            self.quantizer: nn.Module = ResidualVQ(
                dim=size,
                num_quantizers=levels,
                codebook_size=codebook,
                decay=decay,
                threshold_ema_dead_code=dead,
                kmeans_init=True,
                kmeans_iters=10,
                commitment_weight=1.0,
                sync_codebook=False,  # of several processes the first alone learns the code
            )
        elif codebook not in STEPS_OF_A_VALUE:
            sizes = ", ".join(map(str, STEPS_OF_A_VALUE))
            raise UserError(f"tokenizer 'vq': fsq has codebooks of {sizes} codes, not of {codebook}")
        else:
            steps = list(STEPS_OF_A_VALUE[codebook])
            self.quantizer = ResidualFSQ(levels=steps, num_quantizers=levels, dim=size)
        self.learnt: Tensor
        self.register_buffer("learnt", torch.tensor(False))
        self._shown: list[tuple[Tensor, Tensor]] = []
        self._of_tensors: list[
            Tensor
        ] = []  # of each zoo's tensors the pieces (n, pieces of a network, size), till it begins
        self.register_state_dict_pre_hook(lambda module, prefix, keep_vars: module._begin())  # what is saved has begun
        self.log_values: dict[str, Tensor] = {}

    def show(self, means: Tensor, pieces: Tensor, of_tensors: Sequence[Tensor]) -> None:
        """Of a zoo, for where codebooks begin: each piece's mean over networks, and some networks' pieces (M, size).

        `of_tensors` are such again, of each tensor by itself: (n, pieces of it, size).
        """
        self._shown.append((means, pieces))
        self._of_tensors += of_tensors

    def _begin(self) -> None:
        """Codebooks of what was shown: the first of means, or of k-means of them where they are more, the next of the rest."""
        if not self._shown or self.learnt:  # in this order: a GPU would be waited for
            return
        self.learnt.fill_(True)
        if self.learns_codebook:
            means, pieces = (torch.cat(each).to(self.learnt.device) for each in zip(*self._shown, strict=True))
            learning = self.quantizer.training
            self.quantizer.train()
            with torch.no_grad(), seeded(0):
                enough = -(-self.codebook // len(pieces))
                if self.begin == "clusters":
                    self._at_clusters()
                elif len(means) <= self.codebook:
                    book = self.quantizer.layers[0]._codebook  # type: ignore[union-attr,index]
                    begun = torch.cat([means, pieces.repeat(enough, 1)[: self.codebook - len(means)]])
                    book.embed.copy_(begun[None])
                    book.embed_avg.copy_(begun[None])
                    book.initted.fill_(True)
                self.quantizer(self.encoder(pieces.repeat(enough, 1))[None])
            self.quantizer.train(learning)
        self._shown.clear()
        self._of_tensors.clear()

    def _at_clusters(self) -> None:
        """Each level's codes at the centres of what the one before leaves, of each tensor of each zoo by itself.

        A tensor has a share of the codes as it has of a network's pieces, however small its values are.
        """
        from sklearn.cluster import KMeans

        shares = torch.tensor([0, *(pieces.shape[1] for pieces in self._of_tensors)]).cumsum(0)
        firsts = (shares * self.codebook / shares[-1]).round().long().tolist()
        rests = [pieces.flatten(0, 1).to(self.learnt.device) for pieces in self._of_tensors]
        for layer in self.quantizer.layers:  # type: ignore[union-attr]
            centres = torch.zeros(self.codebook, rests[0].shape[1], device=rests[0].device)
            for number, (first, after) in enumerate(pairwise(firsts)):
                rest = rests[number]
                few = rest[torch.randperm(len(rest))[: OF_A_CLUSTER * (after - first)].to(rest.device)].unique(dim=0)
                if not (count := min(after - first, len(few))):
                    continue
                clusters = KMeans(count, max_iter=10, random_state=0).fit(few.cpu().numpy())
                centres[first : first + count] = torch.from_numpy(clusters.cluster_centers_).to(rest)
                of_tensor = centres[first : first + count]
                rests[number] = rest - of_tensor[torch.cdist(rest, of_tensor).argmin(1)]
            book = layer._codebook  # type: ignore[union-attr]
            book.embed.copy_(centres[None])
            book.embed_avg.copy_(centres[None])
            book.initted.fill_(True)

    def check(self, pieces: Tensor) -> None:
        """Raises UserError if hardly any codes are in use."""
        used = len(self.codes_of(pieces)[:, 0].unique())
        most = min(self.codebook, len(pieces.unique(dim=0)))
        if used < max(2, COLLAPSED * most) <= most:
            are = "is" if used == 1 else "are"
            raise UserError(
                f"tokenizer 'vq': the codebook has collapsed: {used} of {self.codebook} codes {are} in use; lower "
                "reconstruction.lr, or take another tokenizer.quantizer"
            )

    def loss(self, pieces: Tensor) -> dict[str, Tensor]:
        self._begin()
        latents = self.encoder(pieces)
        coded = self.quantizer(latents[None])
        quantized, terms = coded[0][0], dict[str, Tensor]()
        if self.learns_codebook:  # straight through: the codebook follows the latents, and is no parameter
            terms["commitment"] = self.commitment * functional.mse_loss(latents, quantized.detach())
            quantized = latents + (quantized - latents).detach()
        terms["squares"] = functional.mse_loss(self.decoder(quantized), pieces)
        counts = torch.bincount(coded[1][0, :, 0], minlength=self.codebook).float()
        share = counts / counts.sum()
        perplexity = torch.exp(-(share * share.clamp_min(1e-12).log()).sum())
        self.log_values = {"codes_used": (counts > 0).float().mean(), "perplexity": perplexity}
        return terms

    @torch.no_grad()
    def codes_of(self, pieces: Tensor) -> Tensor:
        if not len(pieces):
            return pieces.new_zeros(0, self.levels, dtype=torch.long)
        self._begin()
        learning = self.quantizer.training
        self.quantizer.eval()
        indices = self.quantizer(self.encoder(pieces)[None])[1][0]
        self.quantizer.train(learning)
        return indices

    @torch.no_grad()
    def meanings(self) -> Tensor:
        """(levels, codebook, width): what each code adds to a latent."""
        self._begin()
        every = torch.arange(self.codebook, device=self.learnt.device)[:, None].expand(-1, self.levels)
        most = int(self.quantizer.codebook_size)  # type: ignore[arg-type]
        every = every.clamp_max(most - 1)  # fsq has 240 codes where it is asked for 256, and writes no others
        return self.quantizer.get_codes_from_indices(every[None])[:, 0]  # type: ignore[operator]

    def blend(self, shares: Tensor) -> Tensor:
        """Pieces (..., size) of shares (..., levels, codes): what each code stands for by its share, and decoded then."""
        latents = torch.einsum("...lc,lcw->...w", shares, self.meanings())
        return self.decoder(self.quantizer.project_out(latents))  # type: ignore[operator]

    def pieces_of(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantizer.get_output_from_indices(codes[None])[0])  # type: ignore[operator]


class Near(nn.Module):
    """x + a small network of x, which begins as nothing."""

    def __init__(self, size: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))
        nn.init.zeros_(self.layers[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[2].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
