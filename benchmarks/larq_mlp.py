"""MNIST's binarized network in the interpreter of Larq Compute Engine. Dense layers are binary 1x1
convolutions, but the first layer, which takes pixels, is in float32."""

import argparse
import importlib.metadata
import os
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import larq_compute_engine
import numpy as np
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter
from serve import serve


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--of", type=int, required=True, help="images of the task")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    random = np.random.RandomState(0)
    sizes = [784, args.units, args.units, args.units, 10]
    shape = [args.images, 1, 1, 784]

    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
        def __call__(self, x):
            for layer, (i, o) in enumerate(zip(sizes, sizes[1:], strict=False)):
                if layer > 0:
                    x = tf.sign(tf.sign(x) + 0.1)  # the engine's pattern of a binarization
                W = tf.constant(random.choice(np.float32([-1, 1]), (1, 1, i, o)))
                scale, shift = (tf.constant(np.float32(random.normal(size=o))) for _ in range(2))
                x = tf.nn.conv2d(x, W, 1, "VALID") * scale + shift
            return x

    network = Network()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(network, folder, network.__call__.get_concrete_function())
        model = larq_compute_engine.convert_saved_model(folder)
    if model.count(b"LceBconv2d") == 0:
        raise SystemExit("the engine found no binary layer in the model")
    interpreter = Interpreter(model, num_threads=args.threads).interpreter
    inputs = [np.float32(random.randint(0, 256, shape)) * 2 - 255]
    version = importlib.metadata.version("larq-compute-engine")
    part = args.images / args.of
    serve(lambda: interpreter.predict(inputs), least=1, part=part, version=version)


if __name__ == "__main__":
    main()
