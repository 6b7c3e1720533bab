package apptest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// JWTKey is one JWT authority of a trust domain.
type JWTKey struct {
	TrustDomain spiffeid.TrustDomain
	ID          string
	// Issuer is the "iss" claim of what the key signs; empty leaves it out.
	Issuer string
	key    *ecdsa.PrivateKey
}

// NewJWTKey returns a new authority of the trust domain called name, with a key
// ID.
func NewJWTKey(t *testing.T, name, id string) *JWTKey {
	t.Helper()
	return &JWTKey{TrustDomain: spiffeid.RequireTrustDomainFromString(name), ID: id, key: newKey(t)}
}

// Bundle returns a bundle that holds the key of k and those of others, all of one
// trust domain.
func (k *JWTKey) Bundle(others ...*JWTKey) *jwtbundle.Bundle {
	keys := map[string]crypto.PublicKey{k.ID: k.key.Public()}
	for _, other := range others {
		keys[other.ID] = other.key.Public()
	}
	return jwtbundle.FromJWTAuthorities(k.TrustDomain, keys)
}

// Sign returns a JWT-SVID of path for audience that is valid until expiry (RFC
// 7515, section 7.1).
func (k *JWTKey) Sign(path, audience string, expiry time.Time) (string, error) {
	claims := map[string]any{"sub": spiffeid.RequireFromPath(k.TrustDomain, path).String(), "aud": []string{audience}, "exp": expiry.Unix()}
	if k.Issuer != "" {
		claims["iss"] = k.Issuer
	}
	var parts []string
	for _, part := range []map[string]any{{"alg": "ES256", "typ": "JWT", "kid": k.ID}, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(text))
	}
	signed := parts[0] + "." + parts[1]
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, k.key, digest[:])
	if err != nil {
		return "", err
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// jwtAnswers is what a WorkloadAPI says on JWT-SVIDs.
type jwtAnswers struct {
	path    string
	key     *JWTKey
	bundles *jwtbundle.Set
	// replaced is closed by the next SetJWT.
	replaced chan struct{}
}

// SetJWT makes the API hand out JWT-SVIDs of path that key signs, and validate
// those that bundles verify.
func (api *WorkloadAPI) SetJWT(path string, key *JWTKey, bundles ...*jwtbundle.Bundle) {
	api.mu.Lock()
	defer api.mu.Unlock()
	if api.jwt != nil {
		close(api.jwt.replaced)
	}
	api.jwt = &jwtAnswers{path: path, key: key, bundles: jwtbundle.NewSet(bundles...), replaced: make(chan struct{})}
}

func (api *WorkloadAPI) jwtAnswers() (*jwtAnswers, error) {
	api.mu.Lock()
	defer api.mu.Unlock()
	if api.jwt == nil {
		return nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	return api.jwt, nil
}

// FetchJWTSVID hands out a JWT-SVID that is valid for an hour. Who does not say which
// identity is wanted gets another one, as a workload with several may.
func (api *WorkloadAPI) FetchJWTSVID(_ context.Context, r *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	jwt, err := api.jwtAnswers()
	if err != nil {
		return nil, err
	}
	id := spiffeid.RequireFromPath(jwt.key.TrustDomain, jwt.path)
	switch r.GetSpiffeId() {
	case "":
		id = spiffeid.RequireFromPath(jwt.key.TrustDomain, jwt.path+"/another")
	case id.String():
	default:
		return nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	token, err := jwt.key.Sign(id.Path(), r.GetAudience()[0], time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: id.String(), Svid: token}}}, nil
}

// FetchJWTBundles sends the bundles of the last SetJWT, and again whenever it is called.
func (api *WorkloadAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	for {
		jwt, err := api.jwtAnswers()
		if err != nil {
			return err
		}
		answer := &workload.JWTBundlesResponse{Bundles: map[string][]byte{}}
		for _, bundle := range jwt.bundles.Bundles() {
			if answer.Bundles[bundle.TrustDomain().IDString()], err = bundle.Marshal(); err != nil {
				return err
			}
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
		select {
		case <-jwt.replaced:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// ValidateJWTSVID refuses with the code that an agent refuses with.
func (api *WorkloadAPI) ValidateJWTSVID(_ context.Context, r *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	jwt, err := api.jwtAnswers()
	if err != nil {
		return nil, err
	}
	svid, err := jwtsvid.ParseAndValidate(r.GetSvid(), jwt.bundles, []string{r.GetAudience()})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: svid.ID.String()}, nil
}
