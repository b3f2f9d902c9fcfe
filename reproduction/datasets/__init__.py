"""Load a data set by name, with the published split and preprocessing.

`files` finds or downloads the official files and checks them; `prepared` keeps the HDF5 files that
are made of them.
"""

from dataclasses import replace

from original_stack.errors import UserError, no_room

from reproduction.datasets import files as data_files


def load(
    name, data=None, allow_unofficial=False, inputs="centred", train_size=None, lcn="released"
):
    """The training, validation and test set of an experiment.

    Parameters
    ----------
    name : "mnist", "digits", "cifar10" or "svhn"
    data : path, optional
        The directory that has the official files or receives them when they are downloaded; the
        default is `files.data_directories`. For MNIST, "digits" gives scikit-learn's embedded
        digits, and the name of the data set is then "digits". A file `*.npz` gives the user's own
        data, see `own`.
    allow_unofficial : bool
        Accept files whose checksum is not the official one. If their numbers of images differ from
        the official ones, the share of validation images stays the same.
    inputs : "centred" or "signed"
        "centred" is BinaryConnect's preprocessing. "signed" gives the integers 2 pixel - 255 for
        Binarized Neural Networks, which only scale pixels to [-1, 1] (DEVIATIONS.md, 15).
    train_size : int, optional
        Keep only the first `train_size` training images. Validation images, test images and
        preprocessing do not change.
    lcn : "released" or "all-channels"
        The channels of SVHN that local contrast normalization changes: only the first, as in the
        released code, or all three, which was probably intended.

    Returns
    -------
    Dataset

    Raises
    ------
    UserError
        If files are missing and cannot be downloaded, are not official, are damaged or cannot be
        read, or if the prepared files cannot be written.
    """
    # Fuel imports Theano, which users of `preprocessing` and `files` do not need.
    from reproduction.datasets import cifar10, mnist, own, svhn

    if name == "mnist" and data == "digits":
        name = "digits"
    own_file = data if str(data).endswith(".npz") else None
    directories = data_files.data_directories(None if own_file else data)
    try:
        if own_file and name in own.SHAPES:
            dataset = own.load(name, own_file, directories, inputs, lcn)
        elif name == "digits":
            dataset = mnist.digits(inputs)
        elif name == "mnist":
            dataset = mnist.load(directories, allow_unofficial, inputs)
        elif name == "cifar10":
            dataset = cifar10.load(directories, allow_unofficial, inputs)
        elif name == "svhn":
            dataset = svhn.load(directories, allow_unofficial, inputs, lcn)
        else:
            raise UserError(f"unknown data set '{name}'; expected mnist, digits, cifar10 or svhn")
    except OSError as error:
        if no_room(error):
            where = data_files.writable(directories)
            reason = "the disk is full; free some space"
        else:
            where, reason = directories[0], f"{error}; make it writable"
        raise UserError(
            f"cannot prepare {name} in {where}: {reason}, or choose another directory with --data"
        ) from error
    if train_size is not None:
        dataset = replace(dataset, train=dataset.train.first(train_size))
    return dataset
