"""Reduce a trained network, check the certificate, use the result."""

import ssmred
from ssmred import zoo

model, data = zoo.load("fashion-mnist-s4d")
result = ssmred.reduce(model, states=0.3, data=data.calibration.inputs)
print(result.summary())
print(ssmred.verify(result.certificate, model, result.model))

x, labels = data.test.inputs[:1000], data.test.labels[:1000]
for name, network in (("original", model), ("reduced", result.model)):
    accuracy = (network(x).argmax(-1) == labels).float().mean()
    print(f"{name:>9}: {100 * accuracy:.1f} % of 1,000 test images")
