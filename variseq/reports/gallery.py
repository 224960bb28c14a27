"""What a report is made of into its pictures, in the order of the page."""

from __future__ import annotations

from variseq.reports.attention_picture import attention_heatmap
from variseq.reports.canvas import Absent, Picture
from variseq.reports.catalog_pictures import exposure_by_popularity, exposure_inequality, item_map
from variseq.reports.forecast_pictures import reliability_diagram, risk_coverage_curve
from variseq.reports.group_pictures import accuracy_by_group, coverage_by_history, uncertainty_by_history
from variseq.reports.material import Material
from variseq.reports.training_pictures import kl_by_dimension, kl_by_position, latent_over_epochs, training_curves

Shown = list[Picture | Absent]


def gallery(material: Material) -> list[tuple[str, Shown]]:
    """Headings with their pictures; one that the run cannot have is there with the reason."""
    checkpoint = material.checkpoint
    epochs = checkpoint.metrics
    training = training_curves(epochs, checkpoint.config["training"]["kl_target"])
    vectors = checkpoint.network.item_vectors.detach().cpu().numpy()
    return [
        ("Training", [training]),
        ("Health of the latent", [latent_over_epochs(epochs), kl_by_dimension(epochs), kl_by_position(epochs)]),
        ("Accuracy and trust", _judged(material)),
        (
            "Catalog",
            [*_catalog(material), item_map(vectors, material.train_count, material.categories)],
        ),
        ("Attention", [attention_heatmap(checkpoint, material.names)]),
    ]


def _judged(material: Material) -> Shown:
    results = material.results
    if results is None:
        return [Absent("accuracy", "Reliability, risk and coverage, groups", material.why_no_results)]
    depths = sorted({1, results.evaluations[0].k})
    reliability = [reliability_diagram(results, depth) for depth in depths]
    return [
        *reliability,
        risk_coverage_curve(results),
        uncertainty_by_history(results),
        coverage_by_history(results),
        accuracy_by_group(results),
    ]


def _catalog(material: Material) -> Shown:
    if material.results is None or material.train_count is None:
        return [Absent("exposure", "Which items are shown", material.why_no_results)]
    counted = material.results, material.train_count
    return [exposure_by_popularity(*counted), exposure_inequality(*counted)]
