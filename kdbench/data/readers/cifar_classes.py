"""Classes of CIFAR-10 and CIFAR-100 in the order of their labels, and digests of their images."""

_CIFAR100 = """
    apple 4e0e8b17 54c2ef5b              aquarium_fish d3568a51 71de4ac1
    baby b289f65d b354e749               bear f0b27e82 03f07af7
    beaver 1f10c9c3 c13d73c2             bed e6453a93 bdb9ae24
    bee bb60d1e0 2daecfbb                beetle accdaf4d c34e2636
    bicycle b5c05d57 b8a5cdc3            bottle 87f1d1b3 ee305ff6
    bowl c4d332a6 7d647f3c               boy bee67bf5 fbcf5cdf
    bridge 7817c521 fa91848f             bus 2829b4b1 89b2ef5d
    butterfly d20bc67f ebb5a960          camel 4ac24025 fb904c59
    can 752ff98e 52b04924                castle cfd7e757 06a05cf7
    caterpillar 0a43bf42 a64dc7ef        cattle 78d56f23 f9d8ae0e
    chair c3c1e4d8 17cc7836              chimpanzee 0f87b8b9 3dc6ed76
    clock d8a606ff fc03d529              cloud b6da3148 7aacb469
    cockroach bd0ec327 25f7c2b3          couch 1449873f ffa74276
    crab e5aabbb8 6f77c41b               crocodile 4641c0e8 47652acf
    cup f7e85ef3 fdc5ca7c                dinosaur 73a49fe4 147361f7
    dolphin bd826468 56cddd82            elephant 813cd305 2f7bfc4c
    flatfish 9ff98589 0de0e975           forest b19358d2 16d8e2eb
    fox 1e2f7907 43dd18fc                girl 6381edb1 35c0c6e3
    hamster 0283d2bf 54a79773            house 5fd59e47 73c0ff78
    kangaroo d62b5929 c990ec89           keyboard 1f6b09b3 e857b179
    lamp 78d16a83 ac15ea47               lawn_mower 4192f053 62e026d0
    leopard 7484eea0 c7c3f7fd            lion 8c833796 231165ae
    lizard 50f1fad9 7392d700             lobster ce6ad2cd 60220932
    man bd71837d 92db721d                maple_tree ea149068 59b7b210
    motorcycle 258334e4 ad03b402         mountain adfde0e0 13d0c760
    mouse 9c86febf df9e2b9f              mushroom 3977266f 7fd73f3f
    oak_tree 6c375858 cb31f0d3           orange cdd13de2 7770c787
    orchid 18d0b3bf d3ee7487             otter 49a722ed d261f98b
    palm_tree 75348070 7411e199          pear ba802019 cc75e37b
    pickup_truck cbc6416e f4ed1d46       pine_tree ec681b04 8d5d5b82
    plain b3b14f12 0cd96491              plate 30c7ee17 a42f332f
    poppy 660a8dbb f508a947              porcupine 7d17dd4c 41ff93c8
    possum 4696831c 3e25e2f9             rabbit 0c7257de 8f97f3d1
    raccoon d6a72606 f68ff2e2            ray d08411cb dd44a06e
    road b981c6f6 0d8b7600               rocket a5f810c0 e0966d15
    rose 641ea154 e20d2f52               sea 180d2fa2 c65c3820
    seal e9eb94ae c4d5fc9f               shark 71e18465 9e849550
    shrew e7354ad4 da2ca605              skunk f1c0b500 8f6368c9
    skyscraper c0ce66af 4e103c96         snail 5505ed18 9cfea7c2
    snake 26fe82b3 2c257f4e              spider d8c37a9c eb693eec
    squirrel be099579 32390fe7           streetcar c16cb1e2 ee60150c
    sunflower 10d9c7d7 ae0fac9e          sweet_pepper a0c3af06 4e63164e
    table bf093e9a fc4e89f9              tank be4785ca b2815ed1
    telephone 51132bbf 2bd395a3          television cd8fe7eb d509024f
    tiger be73a887 c1181383              tractor 1db74b15 1e1f3b3b
    train 3cca2381 ba0ad6bd              trout 124541fe 0a0799a7
    tulip d173e3e7 d4f18901              turtle e5342562 84fde65b
    wardrobe 76383958 22f3bfad           whale b53fd7fa 53fd5f0f
    willow_tree fce821f1 bb64c2eb        wolf c6c843ca f68cdc9b
    woman 52442062 426aca8b              worm cd2b8436 e7a5cfb4
"""
_FIELDS = _CIFAR100.split()

CLASSES: dict[str, tuple[str, ...]] = {
    "cifar10": tuple(
        "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    ),
    "cifar100": tuple(_FIELDS[::3]),
}
"""Names as in torchvision's archives; label k is class k."""

CLASS_DIGESTS: dict[str, dict[str, str]] = {
    "cifar100": {
        f"{split}/{name}": digest
        for split, start in (("train", 1), ("test", 2))
        for name, digest in zip(_FIELDS[::3], _FIELDS[start::3], strict=True)
    },
}
"""Data set -> ``SPLIT/CLASS`` -> first 8 hexadecimal digits of the digest of that class's images,
see ``kdbench.data.readers.pixel_digest``. They only serve to name the class with a wrong image:
``DatasetFacts.digest`` decides whether a data set is right."""
