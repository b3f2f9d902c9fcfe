"""A name -> checked files -> Fuel's HDF5 file -> training, validation and test sets as published.

Where the files come from and where those made of them lie: see `files` and `prepared`.
"""

from dataclasses import replace

from original_stack.errors import UserError, no_room

from reproduction.datasets import files as data_files


def load(
    name, data=None, allow_unofficial=False, inputs="centred", train_size=None, lcn="released"
):
    """Training, validation and test set of an experiment.

    Parameters
    ----------
    name : "mnist", "digits", "cifar10" or "svhn"
    data : path, optional
        Directory with the official files, or where they are downloaded to. By default those of
        `files.data_directories`. "digits" instead of MNIST's directory gives scikit-learn's
        embedded digits; the name of the data set is then "digits". A file `*.npz` instead of the
        directory gives data of one's own, see `own`.
    allow_unofficial : bool
        Take files whose checksum is not the official one. If they hold other numbers of images, the
        validation set is the same share of them.
    inputs : "centred" or "signed"
        BinaryConnect's preprocessing, or the integers 2 pixel - 255 for Binarized Neural Networks,
        which scale pixels to [-1, 1] and do nothing else (DEVIATIONS.md, 15).
    train_size : int, optional
        Keep the first `train_size` training images. Validation, test and preprocessing stay.
    lcn : "released" or "all-channels"
        The channels of SVHN that local contrast normalization changes: the first only, as in the
        released code, or all three, as was probably meant.

    Returns
    -------
    Dataset

    Raises
    ------
    UserError
        If files are missing and cannot be downloaded, are not official, are damaged or cannot be
        read, or if what is made of them cannot be written.
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
