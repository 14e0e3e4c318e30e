"""What an exported classifier sees in a picture, by onnxruntime, Pillow and numpy: classify.py head.onnx picture.jpg"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
side = session.get_inputs()[0].shape[1]

with Image.open(sys.argv[2]) as file:
    picture = ImageOps.exif_transpose(file).convert("RGBA")
on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
square = np.asarray(ImageOps.fit(on_white, (side, side), Image.Resampling.BICUBIC))

probabilities = session.run(None, {"pixels": square[None]})[0][0]
for number in probabilities.argsort()[::-1][:5]:
    print(f"{probabilities[number]:6.1%}  {classes[number]}")
