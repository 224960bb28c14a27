"""The history of one user into a heatmap: which earlier events the decoder looks back to, at every moment."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from variseq.model.checkpoint import Checkpoint
from variseq.model.network import Network
from variseq.reports.canvas import FONT_POINTS, Absent, Picture, Style, missing_note, name_axes, new_figure, plain
from variseq.sequences.batches import make_batch, query_windows
from variseq.sequences.histories import Histories

NUM_SHOWN = 20
FEWEST_EVENTS, MOST_EVENTS = 15, 25
BEFORE = "start, earlier"


def example_user(lengths: Int[np.ndarray, " user"]) -> int:
    """The first user with 15 to 25 events; if there is none, the first whose length is nearest to 20.

    >>> example_user(np.array([3, 40, 17, 20]))
    2
    """
    fitting = np.flatnonzero((lengths >= FEWEST_EVENTS) & (lengths <= MOST_EVENTS))
    return int(fitting[0]) if len(fitting) else int(np.argmin(np.abs(lengths - NUM_SHOWN)))


@torch.no_grad()
def attention_at_every_event(network: Network, history: Histories) -> Float[np.ndarray, "query key"]:
    """a_ti of one history for all of its tokens in the network's window; the last rows and columns are its events."""
    network.eval()
    windows = query_windows(history, network.config.max_seq_len)
    batch = make_batch(history, windows, np.arange(1), network.config.num_items).to(network.item_bias.device)
    memory = batch.layout.unpack(network.encode(batch).mean)
    position = torch.arange(batch.layout.longest, device=memory.device).unsqueeze(0)
    weights = network.decoder.attention.weights(memory, memory, position)
    return weights[0].cpu().numpy()


def attention_heatmap(checkpoint: Checkpoint, names: list[str]) -> Picture | Absent:
    """`names` has the title (or id) of every item of the catalog."""
    title = "What it looks back to"
    if checkpoint.histories is None:
        return Absent("attention", title, "The run was saved without histories, so there is no user to show.")
    user = example_user(checkpoint.histories.lengths)
    history = checkpoint.histories.history(user)
    num_shown = min(NUM_SHOWN, history.num_events, checkpoint.network.config.max_seq_len)
    if num_shown < 2:
        return Absent("attention", title, "No user has two events, so there is nothing to look back to.")
    weights = attention_at_every_event(checkpoint.network, history)[-num_shown:]
    seen = weights[:, -num_shown:]
    # What went to the start token and to events before those shown is the first column, so that rows sum to 1.
    shown = np.concatenate([weights[:, :-num_shown].sum(axis=1, keepdims=True), seen], axis=1)
    events = [names[item] for item in history.item[-num_shown:]]
    user_id = str(checkpoint.vocabulary.user_ids([user])[0])
    reading = (
        f"The latest {num_shown} of {history.num_events} events of user {user_id}, oldest first. A row is the "
        "moment after an event; its cells are how the attention between encoder and decoder then weights the events up "
        "to there (rows sum to 1; the first column has the weight of the start and of events before those shown). "
        f"Early rows weigh each event more as they have few to share the weight.{missing_note(events)}"
    )
    shows = _strongest(shown[-1], events)
    alt = f"Heatmap of attention weights over the latest {num_shown} events of user {user_id}."
    return Picture("attention", title, reading, shows, alt, partial(_draw_attention, shown, events))


def _strongest(last: Float[np.ndarray, " key"], events: list[str]) -> str:
    """Where the latest event looks back to, and how widely."""
    strongest = int(last[1:].argmax())
    back = len(events) - 1 - strongest
    # Perplexity: how many columns would share the weight if it were spread equally over them.
    spread = float(np.exp(-(last[last > 0] * np.log(last[last > 0])).sum()))
    return (
        f"At the latest event, the most weight that an event has ({last[1:][strongest]:.0%}) is on "
        f"“{events[strongest]}”, {'the event itself' if back == 0 else f'{back} events back'}; {last[0]:.0%} is on the "
        f"first column. The weight is as wide as if {spread:.1f} of {len(last)} columns shared it equally."
    )


def _draw_attention(shown: Float[np.ndarray, "query key"], events: list[str], style: Style) -> Figure:
    figure, (axes,) = new_figure(style, 6.6)
    num_shown = len(events)
    later = np.arange(num_shown + 1) > np.arange(1, num_shown + 1)[:, None]
    colors = LinearSegmentedColormap.from_list("weights", [style.grid, style.colors[0], style.ink])
    # The square root lets weights be told apart in the late rows, where many events share them.
    image = axes.imshow(
        np.ma.masked_where(later, shown), cmap=colors, norm=PowerNorm(0.5, 0, float(shown.max())), aspect="auto"
    )
    small = FONT_POINTS - 3
    labels = [f"{plain(name, 20)}" for name in events]
    axes.set_yticks(np.arange(num_shown), labels=labels, fontsize=small, color=style.ink)
    across = [BEFORE, *labels]
    axes.set_xticks(np.arange(num_shown + 1), labels=across, rotation=90, fontsize=small, color=style.ink)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="top", fraction=0.03, pad=0.02, aspect=40)
    bar.set_ticks([tick for tick in (0, 0.01, 0.05, 0.15, 0.3, 0.5, 0.75, 1) if tick <= float(shown.max())])
    bar.ax.tick_params(colors=style.muted, labelsize=small)
    bar.outline.set_visible(False)
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    bar.set_label("attention weight", color=style.ink, fontsize=FONT_POINTS - 1)
    name_axes(axes, style, "looks back to this event", "")
    axes.set_ylabel("after this event", color=style.ink, fontsize=FONT_POINTS)
    return figure
