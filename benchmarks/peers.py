"The usual alternative to each stage: what most people would write or use. The benchmark compares with it."

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder


class PlainVAE(nn.Module):
    "The network of 02_vae, with a module for each output."

    def __init__(self, width: int, hidden: int, latents: int):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.mu, self.logvar = nn.Linear(hidden, latents), nn.Linear(hidden, latents)
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.hidden(x))
        return self.mu(h), self.logvar(h)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decoder(mu + torch.exp(logvar / 2) * torch.randn_like(mu)), mu, logvar


def vae_loss(x_hat: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    "As in 02_vae: error averaged over batch and features, KL summed over latents."
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()
    return F.mse_loss(x_hat, x) + beta * kl


@torch.no_grad()
def _vae_val_loss(net: PlainVAE, x_val: Tensor, beta: float) -> float:
    x_hat, mu, logvar = net.eval()(x_val)
    return vae_loss(x_hat, x_val, mu, logvar, beta).item()


def plain_vae(
    x: Tensor,  # standardised, (N, D)
    x_val: Tensor,
    hidden: int,
    latents: int,
    epochs: int,
    batch: int,
    beta: float,
    seed: int,
    device: str = "cpu",  # x is on the processor
) -> float:  # validation loss after the last epoch
    "A DataLoader, float32, and Adam with its defaults."
    torch.manual_seed(seed)
    net, x_val = PlainVAE(x.shape[1], hidden, latents).to(device), x_val.to(device)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    train = DataLoader(TensorDataset(x), batch_size=batch, shuffle=True)
    for _ in range(epochs):
        net.train()
        total = 0.0
        for (rows,) in train:
            rows = rows.to(device)
            x_hat, mu, logvar = net(rows)
            loss = vae_loss(x_hat, rows, mu, logvar, beta)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        val_loss = _vae_val_loss(net, x_val, beta)
    return val_loss


def pythae_vae(
    x: Tensor,
    x_val: Tensor,
    hidden: int,
    latents: int,
    epochs: int,
    batch: int,
    beta: float,
    seed: int,
    device: str = "cpu",
) -> float:  # as plain_vae
    "pythae's trainer. With D/2 times our β its loss is D/2 times ours; Adam's steps ignore that factor."
    from pythae.data.datasets import BaseDataset
    from pythae.models import BetaVAE, BetaVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self, net: PlainVAE):
            BaseEncoder.__init__(self)
            self.net = nn.ModuleList([net.hidden, net.mu, net.logvar])

        def forward(self, rows):
            hidden, mu, logvar = self.net
            h = F.relu(hidden(rows))
            return ModelOutput(embedding=mu(h), log_covariance=logvar(h))

    class Decoder(BaseDecoder):
        def __init__(self, net: PlainVAE):
            BaseDecoder.__init__(self)
            self.net = net.decoder

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    logging.disable(logging.WARNING)
    torch.manual_seed(seed)
    width = x.shape[1]
    net = PlainVAE(width, hidden, latents)
    config = BetaVAEConfig(input_dim=(width,), latent_dim=latents, beta=beta * width / 2)
    model = BetaVAE(config, encoder=Encoder(net), decoder=Decoder(net))
    rows = [BaseDataset(v, torch.zeros(len(v))) for v in (x, x_val)]
    with TemporaryDirectory() as folder:
        how = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, learning_rate=1e-3, optimizer_cls="Adam", no_cuda=device == "cpu",
            per_device_train_batch_size=batch, per_device_eval_batch_size=batch, seed=seed,
        )  # fmt: skip
        BaseTrainer(model, rows[0], rows[1], how).train()
    logging.disable(logging.NOTSET)
    return _vae_val_loss(net.to(device), x_val.to(device), beta)


def multivae_loss(
    networks: dict[str, nn.Module],  # image and name, each with encode and decode
    values: dict[str, Tensor],  # image: (B, D), name: (B, M)
    kind: str,  # product or mixture
    beta: float,  # of a product; the library's mixture has none
    noise: Tensor,  # (B, L), the same for every sample
) -> float:  # mean of a pair, less the constant of the Laplace densities
    "The loss that the library multivae gives to our two encoders and decoders."
    from multivae.data.datasets.base import MultimodalBaseDataset
    from multivae.models import MMVAE, MVAE, MMVAEConfig, MVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, vae: nn.Module):
            BaseEncoder.__init__(self)
            self.vae, self.latent_dim = vae, noise.shape[1]

        def forward(self, rows):
            mu, logvar = self.vae.encode(rows)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self, vae: nn.Module):
            BaseDecoder.__init__(self)
            self.vae, self.latent_dim = vae, noise.shape[1]

        def forward(self, z):
            return ModelOutput(reconstruction=self.vae.decode(z))

    shared = {"n_modalities": 2, "latent_dim": noise.shape[1], "decoders_dist": dict.fromkeys(values, "laplace")}
    parts = [{name: part(vae) for name, vae in networks.items()} for part in (Encoder, Decoder)]
    if kind == "product":
        model = MVAE(MVAEConfig(**shared, warmup=0, beta=beta), *parts)
    else:
        model = MMVAE(MMVAEConfig(**shared, K=1, prior_and_posterior_dist="normal", loss="iwae_looser"), *parts)
    fixed = lambda self, shape=(): self.mean + self.stddev * noise.expand(*shape, *noise.shape)
    with mock.patch.object(torch.distributions.Normal, "rsample", fixed):
        loss = model(MultimodalBaseDataset(values)).loss.item()
    numbers = sum(v.shape[1] for v in values.values()) * (2 if kind == "product" else 1)  # each is decoded so often
    return loss / (1 if kind == "product" else len(noise)) - numbers * float(np.log(2))


class Repeats(Dataset):
    "Images with their repeats, each as [x; z] with its own z."

    def __init__(self, x: Tensor, mu: Tensor, logvar: Tensor, y: Tensor, order: Tensor):
        self.x, self.mu, self.std, self.y, self.order = x, mu, torch.exp(logvar / 2), y, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        i = self.order[i]
        z = self.mu[i] + self.std[i] * torch.randn(self.mu.shape[1], device=self.mu.device)
        return torch.cat([self.x[i], z]), self.y[i]


def plain_head(
    train: Repeats,
    x_val: Tensor,  # (n, D + L)
    y_val: Tensor,
    classes: int,
    epochs: int,
    batch: int,
    lr: float,
    decay: float,  # of the weights, as part of the loss
    seed: int,
) -> float:  # best validation accuracy
    "One linear layer by SGD, its repeats from a DataLoader."
    torch.manual_seed(seed)
    head, best = nn.Linear(x_val.shape[1], classes).to(x_val.device), 0.0
    optimiser = torch.optim.SGD(head.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=decay)
    loader = DataLoader(train, batch_size=batch, shuffle=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, epochs * len(loader), pct_start=0.2, cycle_momentum=False
    )
    for _ in range(epochs):
        for x, y in loader:
            loss = F.cross_entropy(head(x.to(x_val.device)), y.to(x_val.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            best = max(best, (head(x_val).argmax(1) == y_val).float().mean().item())
    return best


def sklearn_head(
    train: Repeats,
    x_val: Tensor,
    y_val: Tensor,
    decay: float,  # as in plain_head
) -> float:  # validation cross-entropy
    "scikit-learn's logistic regression, to its own tolerance, on repeats that are stored in memory."
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    x, y = (torch.stack(v).numpy() for v in zip(*train, strict=True))
    model = LogisticRegression(C=1 / (decay * len(x)), max_iter=1000).fit(x, y)
    return log_loss(y_val.numpy(), model.predict_proba(x_val.numpy()), labels=model.classes_)


def folder_loader(
    root: Path,  # one folder a class
    grey: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch: int,
    workers: int,
    shuffle: bool = True,
) -> DataLoader:
    "Images that are decoded and standardised at every use."
    steps = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    if grey:
        steps.insert(0, transforms.Grayscale())
    images = ImageFolder(str(root), transforms.Compose(steps))
    return DataLoader(images, batch_size=batch, shuffle=shuffle, num_workers=workers)


def photograph_loader(root: Path, uses: np.ndarray, config) -> DataLoader:  # uses: places, repeats included
    "Photographs that are decoded, shrunk, cut and standardised at every use, in the process that trains."
    if config.crop < 1:
        shape = [transforms.RandomResizedCrop(config.side, (config.crop, 1.0))]
    else:
        shape = [transforms.Resize(config.side), transforms.CenterCrop(config.side)]
    if config.flip:
        shape.append(transforms.RandomHorizontalFlip())
    steps = [*shape, transforms.ToTensor(), transforms.Normalize(config.mean, config.std)]
    images = Subset(ImageFolder(str(root), transforms.Compose(steps)), uses.tolist())
    return DataLoader(images, batch_size=config.batch, shuffle=True)


def plain_fine_tuning(
    net: nn.Module,  # (B, channels, H, W) -> (B, D)
    width: int,  # D
    loader: DataLoader,
    classes: int,
    epochs: int,
    lr: float,
    device: str,
) -> float:  # mean training loss of the last epoch
    "All weights by SGD, in float32."
    model = nn.Sequential(net, nn.Linear(width, classes)).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, epochs * len(loader), pct_start=0.2, cycle_momentum=False
    )
    model.train()
    for _ in range(epochs):
        total = 0.0
        for x, y in loader:
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
    return total / len(loader)


@torch.no_grad()
def plain_features(net: nn.Module, loader: DataLoader, device: str) -> np.ndarray:  # (N, D)
    "Features of all images, in the loader's order."
    net = net.to(device).eval()
    return torch.cat([net(x.to(device)).cpu() for x, _ in loader]).numpy()
