package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// What kubeadm calls the DNS of a cluster (its cmd/kubeadm/app/phases/addons/dns).
const (
	dnsProgram = "coredns"
	dnsFile    = "Corefile"
)

// Lines of the DNS's configuration between which the names of the lab are. The first one
// follows the line that opens the block for all names.
const (
	namesBegin = "    # The names of the lab, by fedlab:"
	namesEnd   = "    # The names of the lab end here."
	dnsBlock   = ".:53 {"
)

// namesLabel is the annotation of the DNS's pods that starts them again with other names:
// the DNS itself would look for another configuration within half a minute only (CoreDNS,
// plugin reload).
const namesLabel = "fedlab.dev/names"

// names has the DNS of a cluster know the names of the lab.
func (u *up) names(ctx context.Context, c *topology.Cluster) error {
	objects := u.in(c).Objects
	var is struct {
		Data map[string]string `json:"data"`
	}
	key := access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: dnsNamespace, Name: dnsProgram}
	there, err := objects.Object(ctx, key, &is)
	if err != nil {
		return err
	}
	if !there && len(u.Names()) == 0 {
		return nil
	}
	file, err := withNames(is.Data[dnsFile], u.Names())
	if err != nil {
		return fmt.Errorf("write the names of the lab into the DNS of cluster %s: %w", c.Name, err)
	}
	if file == is.Data[dnsFile] {
		return nil
	}
	plan.Did(ctx)
	spec := map[string]any{"replicas": 1}
	if len(u.Names()) > 0 {
		sum := sha256.Sum256([]byte(file))
		spec["template"] = map[string]any{"metadata": map[string]any{"annotations": map[string]any{namesLabel: hex.EncodeToString(sum[:8])}}}
	}
	_, err = objects.Apply(ctx, map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind,
		"metadata": map[string]any{"namespace": key.Namespace, "name": key.Name},
		"data":     map[string]any{dnsFile: file},
	}, map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"namespace": dnsNamespace, "name": dnsProgram},
		"spec":     spec,
	})
	return err
}

// withNames returns the configuration of CoreDNS with these names, and no others of
// fedlab's. What somebody else has written stays.
func withNames(file string, names []topology.Name) (string, error) {
	var lines []string
	ours, was, at := false, false, -1
	for line := range strings.Lines(file) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == namesBegin:
			ours, was = true, true
		case line == namesEnd:
			ours = false
		case !ours:
			if lines = append(lines, line); strings.TrimSpace(line) == dnsBlock && at < 0 {
				at = len(lines)
			}
		}
	}
	if ours {
		return "", fmt.Errorf("the configuration %s has the line %q and not %q: put that back, or delete both and what is between them", dnsFile, strings.TrimSpace(namesBegin), strings.TrimSpace(namesEnd))
	}
	switch {
	case len(names) == 0 && !was:
		return file, nil
	case len(names) == 0:
		return joined(lines), nil
	}
	if at < 0 {
		return "", fmt.Errorf("the configuration %s has no line %q, as kubeadm writes it", dnsFile, dnsBlock)
	}
	block := []string{namesBegin, "    hosts {"}
	for _, name := range names {
		block = append(block, fmt.Sprintf("        %s %s", name.Address, name.Host))
	}
	block = append(block, "        fallthrough", "    }", namesEnd)
	return joined(append(append(lines[:at:at], block...), lines[at:]...)), nil
}

func joined(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
