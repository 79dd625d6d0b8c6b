"""A stranger's training script: a plain loop over torchvision's own Faster R-CNN, which knows nothing of zoo-bench.

It prints what its author likes to read, in a format of its own, and stands for all the scripts that people have.
"""

import argparse
import contextlib
import io
import json
import os
import time

import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.transforms.v2 import functional


def read(folder, coco, image_id):
    name = os.path.join(folder, coco.loadImgs(image_id)[0]["file_name"])
    image = functional.to_dtype(torchvision.io.decode_image(name, "RGB"), torch.float32, scale=True)
    objects = [one for one in coco.loadAnns(coco.getAnnIds(image_id)) if not one["iscrowd"]]
    boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return image, {"boxes": boxes, "labels": torch.tensor([one["category_id"] for one in objects], dtype=torch.int64)}


def evaluate(model, folder, annotations):
    with contextlib.redirect_stdout(io.StringIO()):
        coco, found = COCO(annotations), []
        model.eval()
        for image_id in coco.getImgIds():
            with torch.inference_mode():
                result = model([read(folder, coco, image_id)[0]])[0]
            for (x0, y0, x1, y1), label, score in zip(*(result[key].tolist() for key in ("boxes", "labels", "scores"))):
                box = [x0, y0, x1 - x0, y1 - y0]
                found.append({"image_id": image_id, "category_id": label, "bbox": box, "score": score})
        evaluation = COCOeval(coco, coco.loadRes(found) if found else COCO(), "bbox")
        if not found:
            return 0.0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


def main():
    words = argparse.ArgumentParser()
    for name in ("images", "labels", "val-images", "val-labels", "save"):
        words.add_argument(f"--{name}", required=True)
    words.add_argument("--steps", type=int, default=40)
    words.add_argument("--bs", type=int, default=4)
    words.add_argument("--lr", type=float, default=0.001)
    words = words.parse_args()
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(words.labels)
    classes = max(coco.getCatIds()) + 1
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    small = {"rpn_post_nms_top_n_train": 100, "rpn_post_nms_top_n_test": 50, "box_batch_size_per_image": 32}
    model = FasterRCNN(backbone, classes, min_size=64, max_size=64, box_detections_per_img=20, **small)
    optimizer = torch.optim.AdamW(model.parameters(), lr=words.lr)
    ids = [one for one in coco.getImgIds() if coco.getAnnIds(one)]
    model.train()
    print("go!", json.dumps({"images": len(ids), "classes": classes}))
    for step in range(words.steps):
        began = time.perf_counter()
        batch = [read(words.images, coco, ids[(step * words.bs + place) % len(ids)]) for place in range(words.bs)]
        loss = sum(model([image for image, _ in batch], [target for _, target in batch]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"~ {step + 1}/{words.steps} ~ total {loss.item():.3f} ~ {1000 * (time.perf_counter() - began):.1f}ms")
    torch.save(model.state_dict(), words.save)
    print(f"bbox AP is {100 * evaluate(model, words.val_images, words.val_labels):.2f} points, bye")


if __name__ == "__main__":
    main()
