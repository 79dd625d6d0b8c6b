"""GluonCV's pyramid detectors with a pooling of regions that also works on CPUs."""

from typing import Any, Sequence, Tuple

from gluoncv.model_zoo.rcnn.faster_rcnn import FasterRCNN
from gluoncv.model_zoo.rcnn.mask_rcnn import MaskRCNN

CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4
LEVELS = (2, 3, 4, 5)


class LevelPooling:
    """Pools every region from the level that fits its size (Lin et al. 2016, arXiv:1612.03144, equation 1).

    GluonCV pools all regions from every level, those of other levels from image -1, and adds up. For image -1 MXNet's
    ROIAlign writes zeros on a GPU, but on a CPU (MXNet 1.9.1) a region n of image -1 gets nothing: whatever was in
    that memory is added, and training and detection are spoiled. Its one zero goes to place n of the whole output,
    which is the first region's. Here zeros are chosen, and ``spare_regions`` that nobody wants come first: at least as
    many as hold a place for every region.
    """

    spare_regions = 1

    def _pyramid_roi_feats(
        self,
        F: Any,
        features: Sequence[Any],
        rpn_rois: Any,
        roi_size: Tuple[int, int],
        strides: Sequence[int],
        roi_mode: str = "align",  # noqa: ARG002 - GluonCV names it; nothing here asks for another
    ) -> Any:
        """Features [R, C, S, S] of regions [R, 5]: their image, and corners in pixels."""
        spare = F.tile(-F.ones_like(F.slice_axis(rpn_rois, axis=0, begin=0, end=1)), reps=(self.spare_regions, 1))
        regions = F.concat(spare, rpn_rois, dim=0)
        _, left, top, right, bottom = F.split(regions, axis=-1, num_outputs=5)
        size = F.sqrt((right - left + 1) * (bottom - top + 1))
        wanted = F.floor(CANONICAL_LEVEL + F.log2(size / CANONICAL_SIZE + 1e-6))
        wanted = F.squeeze(F.clip(wanted, LEVELS[0], LEVELS[-1]), axis=-1)
        pooled = []
        for level, feature, stride in zip(LEVELS, features, strides):
            is_here = wanted == level
            own = F.where(is_here, regions, -F.ones_like(regions))
            found = F.contrib.ROIAlign(feature, own, roi_size, 1 / stride, sample_ratio=2)
            pooled.append(F.where(is_here, found, F.zeros_like(found)))
        return F.slice_axis(F.ElementWiseSum(*pooled), axis=0, begin=self.spare_regions, end=None)


def spare_regions(regions: int, values: int) -> int:
    """The regions to put before ``regions`` of ``values`` numbers each: the fewest that hold a place for every one."""
    return -(-regions // (values - 1))


class PyramidFasterRCNN(LevelPooling, FasterRCNN):
    """GluonCV's Faster R-CNN on a feature pyramid."""


class PyramidMaskRCNN(LevelPooling, MaskRCNN):
    """GluonCV's Mask R-CNN on a feature pyramid."""
