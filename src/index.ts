/** The public interface: define services, write codecs, test them. The program is the `headrace` command. */
export {
  type BusyCause,
  ConnectFailed,
  DeadlineExceeded,
  type ErrorCode,
  type ErrorFields,
  HeadraceError,
  RemoteError,
  RequestCancelled,
  RpcError,
  ServerBusy,
} from "./base/errors.ts";
export { CLOSE_REASONS, type CloseReason, type ProtocolFault } from "./base/reasons.ts";
export type { Deadline, Limits, Timeouts } from "./base/settings.ts";
export {
  type Client,
  type ClientDefinition,
  defineClient,
  type PlainClientDefinition,
  type RpcClientDefinition,
} from "./client/define.ts";
export type { ClientStats } from "./client/pool.ts";
export type { ClientDuration, ClientLimits, ClientTimeouts } from "./client/settings.ts";
export type { ClientTlsOptions } from "./client/tls.ts";
export { type Borrowed, type Codec, type Cursor, checkFrame, INVALID, NEED_MORE, skip } from "./codec/codec.ts";
export { type FrameOptions, frame } from "./codec/frame.ts";
export { type LineOptions, line } from "./codec/line.ts";
export type { ProxyInfo } from "./codec/proxy-header.ts";
export type { ProxyTlv } from "./codec/proxy-tlv.ts";
export { type RawOptions, raw } from "./codec/raw.ts";
export {
  type RpcCancel,
  type RpcGoodbye,
  type RpcOptions,
  type RpcPayload,
  type RpcReply,
  type RpcRequest,
  rpc,
  rpcClient,
} from "./codec/rpc.ts";
export type { RpcPriority, RpcStatus } from "./codec/rpc-header.ts";
export {
  type TestDatagram,
  type TestDatagrams,
  type TestDatagramsOptions,
  testDatagrams,
} from "./connection/datagram-harness.ts";
export { type TestConnection, type TestConnectionOptions, testConnection } from "./connection/harness.ts";
export type { CallOptions, DownstreamOptions } from "./service/call.ts";
export type {
  Connection,
  ConnectionInfo,
  ConnectionTimeouts,
  ConnectionTls,
  ConnectionTlsClient,
  Context,
  Duration,
  SendResult,
} from "./service/connection.ts";
export {
  type Concurrency,
  defineService,
  type ErrorReply,
  type Middleware,
  type Reply,
  type Service,
  type ServiceDefinition,
  type ServiceLimits,
  type ServiceTimeouts,
  type Size,
  type TopicOptions,
  type WorkerInfo,
} from "./service/define.ts";
export type { Heartbeat } from "./service/heartbeat.ts";
export { defineRpcService, type RpcMiddleware, type RpcSent, type RpcServiceDefinition } from "./service/rpc.ts";
export {
  type DatagramReply,
  type DatagramSource,
  defineUdpService,
  type UdpService,
  type UdpServiceDefinition,
  type UdpSocket,
  type UdpWorkerInfo,
} from "./service/udp.ts";
export {
  definePool,
  type Pool,
  type PoolDefinition,
  type TaskArgs,
  type TaskName,
  type TaskValue,
} from "./tasks/define.ts";
export type { Priority } from "./tasks/queue.ts";
export type { TaskOptions } from "./tasks/task.ts";
