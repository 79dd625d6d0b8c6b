"""The plain way to train torchvision's detectors: its classes, CocoDetection and v2 transforms, as its references."""

import torch
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.transforms import v2

CLASSES = 91


def build(name, min_size, max_size, norm=FrozenBatchNorm2d, trainable=3):
    body = resnet50(norm_layer=norm)
    sizes = {"min_size": min_size, "max_size": max_size}
    if name == "retinanet_fpn":
        top = LastLevelP6P7(256, 256)
        backbone = _resnet_fpn_extractor(body, trainable, returned_layers=[2, 3, 4], extra_blocks=top)
        return RetinaNet(backbone, CLASSES, detections_per_img=100, **sizes)  # as the others, and as ours
    detector = MaskRCNN if name == "mask-rcnn_fpn" else FasterRCNN
    return detector(_resnet_fpn_extractor(body, trainable), CLASSES, **sizes)


def dataset(images, annotations, masks, more=()):
    to_float = v2.ToDtype(torch.float32, scale=True)
    transforms = v2.Compose([v2.ToImage(), *more, v2.RandomHorizontalFlip(0.5), to_float])
    keys = ("boxes", "labels", "masks") if masks else ("boxes", "labels")
    found = CocoDetection(images, annotations, transforms=transforms)
    kept = [index for index, number in enumerate(found.ids) if found.coco.getAnnIds(number, iscrowd=False)]
    return torch.utils.data.Subset(wrap_dataset_for_transforms_v2(found, target_keys=keys), kept)


def loader(data, batch_size, workers):
    def lists(items):
        return [image for image, _ in items], [target for _, target in items]

    return torch.utils.data.DataLoader(data, batch_size, num_workers=workers, collate_fn=lists, drop_last=True)


def optimizer_of(model, lr):
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(learning, lr=lr, momentum=0.9, weight_decay=1e-4)


def step(model, optimizer, images, targets):
    losses = model(images, targets)
    loss = sum(losses.values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return losses
