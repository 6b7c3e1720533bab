package redact

import "testing"

// TestLeavesMessages has lines as SPIRE, Kubernetes and databases write them.
func TestLeavesMessages(t *testing.T) {
	for _, line := range []string{
		`time="2026-11-29T10:00:00Z" level=error msg="Failed to attest" error="rpc error: code = Unavailable desc = failed to validate token: token is expired" subsystem_name=attestor`,
		`time="2026-11-29T10:00:00Z" level=info msg="Serving health checks" address="0.0.0.0:8080" subsystem_name=health`,
		`time="2026-11-29T10:00:00Z" level=debug msg="Token request" token: rejected by policy`,
		`E1129 10:00:00.123456 1 reflector.go:150] "Failed to watch" err="failed to list *v1.Secret: secrets is forbidden: User \"system:serviceaccount:x:y\" cannot list resource \"secrets\" in API group \"\" at the cluster scope"`,
		`MountVolume.SetUp failed for volume "kube-api-access-abcde" : failed to sync configmap cache: timed out waiting for the condition`,
		`MountVolume.SetUp failed for volume "db-password" : secret "db-password" not found`,
		`Error: secret "spire-database-login" not found`,
		`couldn't find key password in Secret spire-system/spire-database-login`,
		`pq: password authentication failed for user "spire"`,
		`FATAL: password authentication failed for user "app" (SQLSTATE 28P01)`,
		`time="x" level=info msg="X509 CA prepared" expiration="2026-11-30T10:00:00Z" issued_at="2026-11-29T10:00:00Z" local_authority_id=0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c self_signed=true slot=A subsystem_name=ca_manager upstream_authority_id=`,
		`time="x" level=info msg="JWT key activated" local_authority_id=Bk3hV8Xv0y2oDk1n2lXkQ8b3uM4aT5zC subsystem_name=ca_manager`,
		`Pulled: Container image "fedlab.local/spire-server:1.15.3" already present on machine`,
		`rpc error: code = Unauthenticated desc = missing bearer token`,
		`Started container with image sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 as 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
		`remote error: tls: bad certificate; x509svid: could not get leaf chain: x509: certificate signed by unknown authority (possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "serial:123456789012345678901234567890123456")`,
		`/var/lib/kubelet/pods/0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0/volumes/kubernetes.io~projected/kube-api-access-abcde`,
		`I1129 10:00:00.123456 1 token_source.go:1] Generated token expires in 3607s`,
		`time="x" level=debug msg="Entry created" entry_id=market.5d0b2a4c-4b5a-6978-8796-a5b4c3d2e1f0 selectors="[k8s:ns:demo k8s:sa:default]" spiffe_id="spiffe://cluster1.com/server"`,
		`level=warn msg="Invalid token" reason="token is bad" audience="spire-server"`,
		`kubelet[123]: E1129 pod_workers.go:1301] "Error syncing pod, skipping" err="failed to \"StartContainer\" for \"main\" with CrashLoopBackOff: \"back-off 10s restarting failed container=main pod=web_demo(0f1e2d3c)\"" pod="demo/web" podUID="0f1e2d3c"`,
		`{"type":"Warning","reason":"FailedMount","message":"MountVolume.SetUp failed for volume \"bundle\" : configmap \"spire-bundle\" not found"}`,
		`Refreshing bundle from https://10.192.1.1:8443 for spiffe://cluster2.com, next in 15s`,
		`containerd[80]: time="2026-11-29T10:00:00.123456789Z" level=info msg="StartContainer for \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" returns successfully"`,
		`containerd[80]: time="x" level=info msg="RunPodSandbox for &PodSandboxMetadata{Name:web,Uid:0f1e2d3c,Namespace:demo,Attempt:0,}"`,
		`"spec":{"projected":{"sources":[{"serviceAccountToken":{"audience":"spire-server","expirationSeconds":7200,"path":"token"}},{"secret":{"name":"x","items":[{"key":"tls.key","path":"tls.key"}]}}]}}`,
		`{"spec":{"projected":{"sources":[{"serviceAccountToken":{"audience":"spire-server","expirationSeconds":7200,"path":"token"}},{"secret":{"name":"x","items":[{"key":"tls.key","path":"tls.key"}]}}]}}}`,
		`{"automountServiceAccountToken":false,"imagePullSecrets":[{"name":"x"}]}`,
		`NodeAttestor "k8s_psat" { plugin_data { clusters = { "market" = { service_account_allow_list = ["spire-system:spire-agent"] } } } }`,
		`KeyManager "disk" { plugin_data { keys_path = "/run/spire/data/keys.json" } }`,
		`connection_string = "dbname=spire user=spire host=spire-database sslmode=disable"`,
	} {
		if got := string(textOf([]byte(line))); got != line {
			t.Errorf("got  %s\nwant %s", got, line)
		}
	}
}
