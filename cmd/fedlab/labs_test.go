package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// object is a JSON object.
type object = map[string]any

// engine serves what Docker says of two labs and of somebody else's container:
// quotes with two clusters, one of them stopped, and lost, whose network somebody
// has removed.
func engine(t *testing.T) string {
	t.Helper()
	node := func(cluster, network, state string) object {
		return object{
			"Id": cluster, "Names": []string{"/" + cluster + "-control-plane"}, "State": state,
			"Labels":          object{"io.x-k8s.kind.cluster": cluster},
			"HostConfig":      object{"NetworkMode": network},
			"NetworkSettings": object{"Networks": object{network: object{}}},
		}
	}
	mux := http.NewServeMux()
	answer := func(pattern string, with any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(with)
		})
	}
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	answer("GET /{version}/networks", []object{
		{"Id": "1", "Name": "fedlab-quotes", "Labels": object{"dev.fedlab.lab": "quotes", "dev.fedlab.owner": "ada"}},
		{"Id": "2", "Name": "bridge"},
		{"Id": "3", "Name": "fedlab-copied", "Labels": object{"dev.fedlab.lab": "other"}},
	})
	answer("GET /{version}/containers/json", []object{
		node("quotes-market", "fedlab-quotes", "running"), node("quotes-broker", "fedlab-quotes", "created"),
		node("lost-only", "fedlab-lost", "created"), node("kind", "kind", "running"),
	})
	answer("GET /{version}/containers/{id}/json", object{"HostConfig": object{}})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return "tcp://" + strings.TrimPrefix(server.URL, "http://")
}

// TestLabsAreListed: 'fedlab list' and the completion of --lab know the labs of
// the engine, and nothing of others.
func TestLabsAreListed(t *testing.T) {
	host := engine(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"list"}, "LAB     STATE           OWNER  CLUSTERS\nlost    stopped         -      only\nquotes  partly running  ada    broker (stopped), market (running)\n"},
		{[]string{"__complete", "status", "--lab", ""}, "company\nenterprise\nlost\nquotes\n:0\n"},
	} {
		fedlab := exec.CommandContext(t.Context(), "fedlab", tt.args...)
		fedlab.Env = append(os.Environ(), "LAB=", "DOCKER_HOST="+host, "FEDLAB_CACHE="+t.TempDir())
		var stderr strings.Builder
		fedlab.Stderr = &stderr
		out, err := fedlab.Output()
		if err != nil || string(out) != tt.want {
			t.Errorf("fedlab %s: error %v, got\n%s%s\nwant\n%s", strings.Join(tt.args, " "), err, out, stderr.String(), tt.want)
		}
	}
}
