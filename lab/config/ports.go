package config

import (
	"fmt"
	"net/netip"
)

// CheckPorts asks probe for each address that the lab is to listen at on this
// machine and returns Problems for those that it has an error for. Not part of
// Read, because the answer depends on the machine and the moment: a lab that is
// up holds its ports itself.
func (f File) CheckPorts(probe func(netip.AddrPort) error) error {
	var problems Problems
	for i, w := range f.Topology.Workloads {
		if !w.Expose.IsValid() {
			continue
		}
		if err := probe(w.Expose); err != nil {
			path := workloadPath(i, "expose")
			at := nodeAt(f.nodes, path)
			problems = append(problems, Problem{
				Line: at.Line, Column: at.Column, Path: path,
				Cause: fmt.Sprintf("port %d of this machine cannot be had: %s", w.Expose.Port(), err),
				Want:  "stop what listens there, or write another port",
			})
		}
	}
	if problems == nil {
		return nil
	}
	return problems.from(f.Source)
}
