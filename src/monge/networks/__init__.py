"""Networks: plain `nn.Module`s, and the distributions that encoders return."""

from monge.networks.clusters import Clusters
from monge.networks.codes import Dirac, GaussianDecoder, Normal, NormalEncoder
from monge.networks.conv import Details, conv_critic, conv_decoder, conv_encoder, conv_features
from monge.networks.families import (
    CloudNetworks,
    ImageNetworks,
    Networks,
    PublishedNetworks,
    VectorNetworks,
)
from monge.networks.labelled import (
    CodeCritic,
    JointFeatures,
    LabelledDecoder,
    LabelledEncoder,
    ProjectionHead,
)
from monge.networks.mlp import Standardise, Unstandardise, mlp
from monge.networks.norm import BatchNorm
from monge.networks.paper import paper_critic, paper_decoder, paper_encoder, published
from monge.networks.pointnet import PointNet, pointnet_decoder, pointnet_encoder
from monge.networks.unet import ImageVelocity
from monge.networks.velocity import CloudVelocity, VectorVelocity

__all__ = [
    "BatchNorm",
    "CloudNetworks",
    "CloudVelocity",
    "Clusters",
    "CodeCritic",
    "Details",
    "Dirac",
    "GaussianDecoder",
    "ImageNetworks",
    "ImageVelocity",
    "JointFeatures",
    "LabelledDecoder",
    "LabelledEncoder",
    "Networks",
    "Normal",
    "NormalEncoder",
    "PointNet",
    "ProjectionHead",
    "PublishedNetworks",
    "Standardise",
    "Unstandardise",
    "VectorNetworks",
    "VectorVelocity",
    "conv_critic",
    "conv_decoder",
    "conv_encoder",
    "conv_features",
    "mlp",
    "paper_critic",
    "paper_decoder",
    "paper_encoder",
    "pointnet_decoder",
    "pointnet_encoder",
    "published",
]
