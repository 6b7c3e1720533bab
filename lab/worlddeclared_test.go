package lab_test

import (
	"slices"
	"strings"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
)

// createPlain makes an entry whose ID the client has chosen.
func (s *spireServer) createPlain(e *types.Entry) *types.Status {
	if s.plain[e.Id] != nil || slices.ContainsFunc(s.all(), func(other *types.Entry) bool { return keyOfEntry(other) == keyOfEntry(e) }) {
		return &types.Status{Code: int32(codes.AlreadyExists), Message: "similar entry already exists"}
	}
	s.plain[e.Id] = e
	for _, m := range s.managers() {
		if m.deletes(e.Id) {
			delete(s.plain, e.Id)
		}
	}
	return &types.Status{}
}

// keyOfEntry is what no two entries have both.
func keyOfEntry(e *types.Entry) string {
	var selectors []string
	for _, s := range e.Selectors {
		selectors = append(selectors, s.Type+":"+s.Value)
	}
	slices.Sort(selectors)
	return strings.Join(append([]string{e.SpiffeId.Path, e.ParentId.Path}, selectors...), " ")
}

// deletes reports whether a manager deletes an entry of somebody else by its ID.
func (m manager) deletes(id string) bool {
	prefix, _, dotted := strings.Cut(id, ".")
	return m.alone || dotted && prefix == m.prefix || m.cleansing && !dotted
}
