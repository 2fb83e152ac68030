/** A safetensors file with its f32 tensors as f16. */

/** To the nearest, ties to even, as IEEE 754 says. */
export function toHalf(value: number): number {
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fff_ffff;
  if (magnitude > 0x7f80_0000) return sign | 0x7e00;
  // From here on the nearest is infinity.
  if (magnitude >= 0x477f_f000) return sign | 0x7c00;
  // Subnormal: units of 2⁻²⁴; adding 0.5 in f32 leaves that many bits of the fraction, rounded.
  if (magnitude < 0x3880_0000) {
    view.setUint32(0, magnitude);
    view.setFloat32(0, view.getFloat32(0) + 0.5);
    return sign | (view.getUint32(0) - 0x3f00_0000);
  }
  const odd = (magnitude >>> 13) & 1;
  return sign | ((magnitude - 0x3800_0000 + 0xfff + odd) >>> 13);
}

const view = new DataView(new ArrayBuffer(4));

interface Tensor {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** `scale` is what a tensor's values are multiplied by. */
export function halved(file: Buffer, scale: (name: string) => number = () => 1): Buffer {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Record<string, Tensor>;
  const parts: Buffer[] = [];
  let at = 0;
  const tensors = Object.entries(header).filter(([name]) => name !== "__metadata__");
  const entries = tensors.map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
    const bytes = file.subarray(8 + length + from, 8 + length + to);
    const part = dtype === "F32" ? halves(bytes, scale(name)) : bytes;
    parts.push(part);
    at += part.length;
    return [name, { dtype: dtype === "F32" ? "F16" : dtype, shape, data_offsets: [at - part.length, at] }] as const;
  });
  const text = JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) });
  // Tensors begin at a multiple of eight.
  const head = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(head.length));
  return Buffer.concat([size, head, ...parts]);
}

function halves(bytes: Buffer, scale: number): Buffer {
  const result = Buffer.alloc(bytes.length / 2);
  for (let i = 0; i < result.length; i += 2) result.writeUInt16LE(toHalf(scale * bytes.readFloatLE(2 * i)), i);
  return result;
}
