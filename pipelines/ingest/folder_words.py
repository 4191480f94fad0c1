"""The words that names of folders consist of, in lower case with underscores, in several languages."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Good images.
GOOD = _words(
    """
    good ok okay normal pass passed io i_o healthy flawless intact undamaged accepted gut fault_free
    defect_free defectfree no_defect no_defects without_defect without_defects non_defective no_damage
    no_anomaly no_anomalies fehlerfrei in_ordnung bon bonne bueno buono 正常 良品 合格 合格品 良好 無欠陥 양품
    """
)

# Anomalies.
ANOMALY = _words(
    """
    anomaly anomalies anomalous abnormal bad ng nok not_ok not_good no_good nio n_i_o fail failed failure
    failures defect defects defective def faulty damaged reject rejected rejects scrap ko damage damages
    nicht_in_ordnung schlecht ausschuss fehler fehlerhaft defekt defekte schadhaft mauvais malo defectuoso
    difettoso 异常 異常 缺陷 不良 不良品 不合格 不合格品 次品 불량
    """
)

# Masks, also beside other words.
MASK_WORDS = _words(
    """
    mask masks gt groundtruth ground_truth groundtruths
    """
)

# Mask folders by their whole name only, since these words also stand for other things.
MASK_NAMES = _words(
    """
    label labels annotation annotations seg segmentation segmentations segmentationclass segmentationobject
    """
)

# Images without a label.
UNLABELLED = _words(
    """
    unlabelled unlabeled unknown unsorted unclassified to_label todo test_private private_test private
    """
)

# Words that say nothing.
NEUTRAL = _words(
    """
    images image img imgs jpegimages data dataset pictures picture pics photos photo rgb raw dir folder files
    set split public
    """
)

# Where images were taken.
VIEWS = _words(
    """
    front back rear top bottom side left right inner outer upper lower cam camera kamera view ansicht station
    """
)

# Something made from images, also behind other words: `bad_overlays`.
MADE_FROM_IMAGES = _words(
    """
    heatmap heatmaps overlay overlays prediction predictions visualization visualizations visualisation
    visualisations thumbnail thumbnails preview previews backup backups
    """
)

# The same by the whole name only, and other kinds of pictures than those of the camera.
DERIVED = MADE_FROM_IMAGES | _words(
    """
    pred preds predicted result results output outputs vis thumb thumbs depth depthmap depthmaps xyz
    pointcloud pointclouds pcd normals original originals cropped augmented augmentation augmentations trash
    temp tmp cache template templates reconstruction reconstructions saliency gradcam edge_map edge_maps
    anomaly_map anomaly_maps anomalymap anomalymaps heat_map heat_maps depth_map depth_maps normal_map
    normal_maps score_map score_maps point_cloud point_clouds
    """
)
