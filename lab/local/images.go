package local

import (
	"context"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/fedlab-dev/fedlab/charts"
	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/helmrelease"
	"github.com/fedlab-dev/fedlab/lab/images"
	"github.com/fedlab-dev/fedlab/lab/kindcluster"
	"github.com/fedlab-dev/fedlab/lab/kube"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

type imageParts struct{ library *images.Library }

func (i imageParts) Ensure(ctx context.Context, node bool, optional []string) (lab.ImageSet, error) {
	need := images.Parts
	if node {
		need = images.Node
	}
	set, err := i.library.Ensure(ctx, need, optional...)
	if err != nil {
		return lab.ImageSet{}, err
	}
	s := lab.ImageSet{
		DefaultCNI:             set.DefaultCNI,
		Demos:                  set.Demos,
		MetalLBChart:           set.MetalLBChart,
		MetalLBController:      images.MetalLBController,
		MetalLBSpeaker:         images.MetalLBSpeaker,
		SPIREServer:            images.SPIREServer,
		SPIREAgent:             images.SPIREAgent,
		SPIREControllerManager: images.SPIREControllerManager,
	}
	if node {
		s.Node = set.NodeImage
	}
	for _, data := range set.CRDs {
		var crd map[string]any
		if err := yaml.Unmarshal(data, &crd); err != nil {
			return lab.ImageSet{}, fmt.Errorf("read CRD: %w", err)
		}
		s.CRDs = append(s.CRDs, crd)
	}
	return s, nil
}

func (i imageParts) LoadDemo(ctx context.Context, name, cluster, app string) (bool, error) {
	return i.library.LoadDemo(ctx, kindcluster.NodeName(kindName(name, cluster)), app)
}

func (i imageParts) Own(ctx context.Context, o topology.OwnImage) (string, error) {
	return i.library.Own(ctx, images.Own(o))
}

func (i imageParts) LoadOwn(ctx context.Context, name, cluster, reference string) (bool, error) {
	return i.library.LoadOwn(ctx, kindcluster.NodeName(kindName(name, cluster)), reference)
}

func connect(kubeconfig []byte) (access.Cluster, error) {
	cluster, err := kube.New(kubeconfig)
	if err != nil {
		return access.Cluster{}, err
	}
	helm, err := helmrelease.New(kubeconfig)
	if err != nil {
		return access.Cluster{}, err
	}
	in := cluster.Access()
	in.Releases = helm.Access(charts.FS)
	return in, nil
}
